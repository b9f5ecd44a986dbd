"""The answer to one item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anymodal.app import previews, words
from anymodal.app.markup import image, player, text
from anymodal.app.timeline_view import timeline_html
from anymodal.items import Moments
from anymodal.prediction import Prediction

SHOWN = 4
"""Classes that are seen without opening the rest."""


def answer_html(
    answer: Prediction, item: Moments, name: str, rate: int, judge_facts: Mapping[str, Any]
) -> str:
    """The answer: instrument or unknown, why, probabilities, timeline, and what was taken in.

    `name` is what the user calls the item, `rate` that of its sound in Hz.
    """
    if answer.known:
        head, why = answer.answer, words.doubt(answer)
    else:
        head, why = "unknown", words.unknown(answer, item)
    ranked = answer.top(len(answer.classes))
    sure = f'<span class="am-sure">{words.percent(ranked[0][1])}</span>' if answer.known else ""
    more = ranked[SHOWN:]
    rest = (
        f"<details><summary>all {len(ranked)} classes</summary>{_bars(more)}</details>"
        if more
        else ""
    )
    # a probability says nothing of what is none of the classes
    meaning = (
        f'<p class="am-small">{text(words.calibration(judge_facts))}</p>' if answer.known else ""
    )
    note = f"<p>{text(why)}</p>" if why else ""
    kind = "am-known" if answer.known else "am-unknown"
    return (
        f'<section class="am-answer {kind}" aria-label="Answer">'
        f'<p class="am-file">{text(name)}</p>'
        f'<h2 class="am-head">{text(head)}{sure}</h2>'
        f'<p class="am-basis">{text(words.basis(answer, item))}</p>{note}'
        f"{_bars(ranked[:SHOWN])}{rest}"
        f"{meaning}"
        f"{timeline_html(answer, item.seconds)}{_taken_in(item, rate)}</section>"
    )


def error_html(message: str) -> str:
    """What is wrong, in one line."""
    return (
        '<section class="am-answer am-error" role="alert"><h2 class="am-head">No answer</h2>'
        f"<p>{text(message)}</p></section>"
    )


def waiting_html(classes: tuple[str, ...]) -> str:
    """What stands in the answer's place before there is one."""
    return (
        '<section class="am-answer am-waiting" aria-label="Answer">'
        '<h2 class="am-head">Drop a picture, a sound or a film, or record one</h2>'
        "<p>The answer appears here, then the training clips nearest to it and its place on the "
        "map.</p>"
        f'<p class="am-small">It knows {text(", ".join(classes))}.</p></section>'
    )


def _bars(ranked: list[tuple[str, float]]) -> str:
    rows = "".join(
        f'<li><span class="am-name">{text(name)}</span>'
        '<span class="am-track" aria-hidden="true">'
        f'<span style="width:{100 * p:.1f}%"></span></span>'
        f'<span class="am-share">{words.percent(p)}</span></li>'
        for name, p in ranked
    )
    return f'<ul class="am-bars">{rows}</ul>'


def _taken_in(item: Moments, rate: int) -> str:
    pictures, sound = previews.seen(item), previews.heard(item, rate)
    parts = []
    if pictures:
        film = len(pictures) > 1 or item.kind == "video"
        frames = "".join(
            f"<figure>{image(previews.picture_address(one.image), _alt(one.start_s, film))}"
            f"{f'<figcaption>{words.seconds(one.start_s)}</figcaption>' if film else ''}</figure>"
            for one in pictures
            if one.image is not None
        )
        parts.append(f'<div class="am-frames am-of-{len(pictures)}">{frames}</div>')
    if len(sound):
        long = len(sound) >= previews.HEARD_S * rate
        note = (
            f'<p class="am-small">the first {words.seconds(previews.HEARD_S)} of what it heard</p>'
            if long
            else ""
        )
        parts.append(player(previews.sound_address(sound, rate), "what it heard") + note)
    did = {(True, True): "heard and saw", (True, False): "saw", (False, True): "heard"}
    verb = did[bool(pictures), bool(len(sound))]
    return f'<h3>What it {verb}</h3><div class="am-taken">{"".join(parts)}</div>'


def _alt(start_s: float, film: bool) -> str:
    return f"frame at {words.seconds(start_s)}" if film else "the picture that was classified"
