"""The training clips nearest to an item, as cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anymodal.app import words
from anymodal.app.markup import breakable, image, player, text
from anymodal.app.reason import Card
from anymodal.encoders.base import Modality
from anymodal.prediction import Prediction

_ORDER: tuple[Modality, ...] = ("image", "audio")


def reason_html(
    answer: Prediction, found: Mapping[Modality, Sequence[Card]], has_media: bool
) -> str:
    """Nearest pictures and nearest sounds, side by side where there is room.

    `has_media`: the dataset's folder was given, so a medium that is missing is worth a word.
    """
    cards = [card for m in _ORDER for card in found.get(m, ())]
    if not cards:
        return no_reference_html()
    best = answer.top(1)[0][0]
    same = words.agreement([card.neighbour.instrument for card in cards], best)
    note = ""
    if not has_media:
        note = (
            '<p class="am-small">The pack that this classifier was trained on has names and '
            "features of its clips, but no media; <code>--media</code> takes the dataset’s folder."
            "</p>"
        )
    columns = "".join(
        f'<div class="am-column am-{m}"><h3>Nearest {words.THINGS[m]}</h3>'
        f'<ol class="am-cards">{"".join(_card(c, m, has_media) for c in found[m])}</ol></div>'
        for m in _ORDER
        if found.get(m)
    )
    return (
        '<section class="am-reason" aria-label="Reason"><h2>The nearest training clips</h2>'
        f"<p>{text(same)} Cosines compare joint vectors: 1 is the same direction, 0 nothing in "
        f'common.</p>{note}<div class="am-columns">{columns}</div></section>'
    )


def no_reference_html() -> str:
    """What is said of a classifier that keeps no training rows."""
    return (
        '<section class="am-reason"><h2>The nearest training clips</h2>'
        "<p>This classifier keeps no training rows, so there is nothing to compare with; "
        "<code>classify.neighbours</code> in params.yaml says how many are kept.</p></section>"
    )


def _card(card: Card, modality: Modality, has_media: bool) -> str:
    one = card.neighbour
    file = one.path.replace("\\", "/").rpartition("/")[2]
    start = f", from {words.seconds(one.start_s)}" if one.start_s > 0 else ""
    label = f"{words.THING[modality]} of {one.instrument}: {file}{start}"
    if card.preview is None:
        medium = '<p class="am-gone">not in the media folder</p>' if has_media else ""
    else:
        medium = image(card.preview, label) if modality == "image" else player(card.preview, label)
    return (
        f"<li>{medium}<p><strong>{text(one.instrument)}</strong> "
        f'<span class="am-cosine">cosine {one.cosine:.2f}</span></p>'
        f'<p class="am-clip">{breakable(file)}{text(start)}<br>source {text(one.source)}</p></li>'
    )
