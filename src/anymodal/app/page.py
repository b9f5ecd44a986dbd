"""The page, built of Gradio's parts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from anymodal.app import colours, words
from anymodal.app.answer_view import answer_html, error_html, waiting_html
from anymodal.app.map_view import MapView
from anymodal.app.markup import text
from anymodal.app.media_folder import MediaFolder
from anymodal.app.reason import query, reason
from anymodal.app.reason_view import no_reference_html, reason_html
from anymodal.errors import AnymodalError
from anymodal.items import Moments
from anymodal.report.palette import PALETTE

if TYPE_CHECKING:
    from anymodal.model import ModalityAgnosticClassifier

Decode = Callable[[bytes, str], Moments]
NEIGHBOURS = 4
"""Training clips of each modality that are shown."""
WAITING, AT_WORK = 16, 2
"""Items that may wait, and that are worked on at a time."""
TITLE = "anymodal: which instrument?"
_log = logging.getLogger(__name__)

# Gradio has no way to name the language, nor to have a part's changes read out
ON_LOAD = """() => {
  document.documentElement.lang = 'en';
  document.getElementById('am-answer')?.setAttribute('aria-live', 'polite');
}"""


def build_page(
    classifier: ModalityAgnosticClassifier, media: MediaFolder | None, decode: Decode, max_mb: float
) -> gr.Blocks:
    """The page of a classifier.

    Parameters
    ----------
    media: the training clips' media, if they are at hand.
    decode: takes a file apart, given its bytes and its name, at the classifier's sample rate.
    max_mb: MiB of a file; told to the user, and enforced by whoever launches the page.
    """
    responder = _Responder(classifier, media, decode)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(300, 900)) as page:
        gr.HTML(
            '<header class="am-top"><h1>Which instrument?</h1><p>From a sound, a picture or a '
            "film, whichever is at hand.</p></header>"
        )
        with gr.Row(elem_classes="am-main"):
            with gr.Column(scale=2, min_width=280):
                inputs = _inputs(max_mb)
            with gr.Column(scale=3, min_width=280):
                answer = gr.HTML(waiting_html(classifier.classes), elem_id="am-answer")
        why = gr.HTML("", elem_id="am-why")
        place = gr.HTML(responder.empty_map(), elem_id="am-place")
        gr.HTML(f'<footer class="am-facts">{text(words.facts(classifier))}</footer>')
        for source, recorded in inputs:
            gr.on(
                [source.change],
                responder.recorded if recorded else responder.dropped,
                source,
                [answer, why, place],
                concurrency_limit=AT_WORK,
                concurrency_id="classify",
                trigger_mode="always_last",
                show_progress="minimal",
                show_progress_on=[answer],
                api_visibility="private",
            )
    page.queue(max_size=WAITING, default_concurrency_limit=AT_WORK)
    return page


def theme() -> gr.themes.Base:
    """Gradio's plainest theme in the colours of the report, with the system's own letters."""
    (paper, paper_dark), (ink, ink_dark) = PALETTE["paper"], PALETTE["ink"]
    muted, rule = PALETTE["muted"], PALETTE["rule"]
    accent = PALETTE["translated"]
    return gr.themes.Base(
        font=["system-ui", "Segoe UI", "Noto Sans", "Helvetica Neue", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
        text_size="lg",
    ).set(
        body_background_fill=paper,
        body_background_fill_dark=paper_dark,
        background_fill_primary=paper,
        background_fill_primary_dark=paper_dark,
        block_background_fill=paper,
        block_background_fill_dark=paper_dark,
        body_text_color=ink,
        body_text_color_dark=ink_dark,
        body_text_color_subdued=muted[0],
        body_text_color_subdued_dark=muted[1],
        block_label_text_color=muted[0],
        block_label_text_color_dark=muted[1],
        border_color_primary=rule[0],
        border_color_primary_dark=rule[1],
        color_accent=accent[0],
        link_text_color=accent[0],
        link_text_color_dark=accent[1],
    )


def css() -> str:
    """The page's style: colours of both themes, then `page.css`."""
    themes = (
        f"{where} {{ " + "; ".join(f"--am-{n}: {pair[t]}" for n, pair in PALETTE.items()) + " }\n"
        for t, where in enumerate((":root", ".dark"))
    )
    own = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return "".join(themes) + colours.css() + own


def _inputs(max_mb: float) -> list[tuple[Any, bool]]:
    """The ways in, each with whether it records."""
    with gr.Tabs(elem_id="am-inputs"):
        with gr.Tab("File"):
            file = gr.File(
                label=f"Picture, sound or film, up to {max_mb:g} MB", height=190, elem_id="am-file"
            )
        with gr.Tab("Sound"):
            sound = gr.Audio(
                sources=["microphone"],
                type="filepath",
                label="Record a sound",
                # one of the usual ones sends the sound to another host
                buttons=[],
                editable=False,
                elem_id="am-sound",
            )
        with gr.Tab("Photo"):
            photo = gr.Image(
                sources=["webcam"],
                type="filepath",
                label="Take a photo",
                buttons=[],
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="am-photo",
            )
            # Gradio would open it with Pillow right here, where nothing bounds what that may cost
            photo.preprocess = _as_it_came  # type: ignore[method-assign]
        with gr.Tab("Film"):
            film = gr.Video(
                sources=["webcam"],
                label="Record a film",
                include_audio=True,
                buttons=[],
                # mirrored it would go through FFmpeg before anything has looked at it
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="am-film",
            )
    for part in (file, sound, photo, film):
        _only_uploads(part)
    return [(file, False), (sound, True), (photo, True), (film, True)]


def _only_uploads(part: gr.components.Component) -> None:
    """Keep Gradio from fetching a file for whoever sends an address in place of one."""
    taken = part.async_move_resource_to_block_cache

    async def local(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("send a file, not an address")
        return await taken(path)

    part.async_move_resource_to_block_cache = local  # type: ignore[method-assign, assignment]


def _as_it_came(payload: Any) -> str | None:
    return None if payload is None else payload.path


class _Responder:
    """Answers items, one at a time through the networks."""

    def __init__(
        self, classifier: ModalityAgnosticClassifier, media: MediaFolder | None, decode: Decode
    ) -> None:
        self._classifier = classifier
        self._media = media
        self._decode = decode
        self._turn = threading.Lock()
        reference = classifier.reference
        self._reference = reference if reference is not None and len(reference.table) else None
        self._map = MapView(self._reference) if self._reference is not None else None

    def empty_map(self) -> str:
        """The map without an item."""
        return self._map.html() if self._map else ""

    def dropped(self, path: str | None) -> Iterator[tuple[Any, ...]]:
        """Answer, reason and map for a file."""
        yield from self._respond(path, Path(path).name if path else "")

    def recorded(self, path: str | None) -> Iterator[tuple[Any, ...]]:
        """The same for a recording, whose file has no name that says anything."""
        yield from self._respond(path, "your recording")

    def _respond(self, path: str | None, name: str) -> Iterator[tuple[Any, ...]]:
        if path is None:
            yield waiting_html(self._classifier.classes), "", self.empty_map()
            return
        try:
            yield from self._answers(path, name)
        except AnymodalError as error:
            yield error_html(str(error)), "", self.empty_map()
        except Exception:
            _log.exception("no answer for a file")
            told = "Something is wrong on the server, not with your file; its log says what."
            yield error_html(told), "", self.empty_map()

    def _answers(self, path: str, name: str) -> Iterator[tuple[Any, ...]]:
        classifier = self._classifier
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise AnymodalError(f"{name}: is gone from the server; send it again") from error
        try:
            item = self._decode(content, name)
        except AnymodalError as error:
            told = str(error)
            raise AnymodalError(told if told.startswith(name) else f"{name}: {told}") from error
        with self._turn:
            answer = classifier.predict_moments([item])[0]
        first = answer_html(answer, item, name, classifier.sample_rate, classifier.judge.facts)
        if self._reference is None or self._map is None:
            yield first, no_reference_html(), ""
            return
        yield first, gr.skip(), gr.skip()
        with self._turn:
            vectors = classifier.embed_moments([item])[0]
        found = reason(self._reference, query(vectors, answer.modality), NEIGHBOURS, self._media)
        neighbours = [card.neighbour for cards in found.values() for card in cards]
        yield (
            gr.skip(),
            reason_html(answer, found, self._media is not None),
            self._map.html(vectors, neighbours),
        )
