"""The page as Gradio components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from anymodal.app.rendering import render
from anymodal.app.responder import Responder
from anymodal.report.palette import PALETTE

WAITING, AT_WORK = 16, 2
"""Items that may wait, and that are processed at a time."""
# Gradio has no options for the page's language and for ARIA attributes
ON_LOAD = """() => {
  document.documentElement.lang = 'en';
  const set = (id, values) => Object.entries(values).forEach(
    ([name, value]) => document.getElementById(id)?.setAttribute(name, value));
  set('am-answer', {'aria-live': 'polite'});
  set('am-plot', {role: 'img', 'aria-labelledby': 'am-map-text'});
}"""


def build_page(responder: Responder, max_mb: float) -> gr.Blocks:
    """The page; `max_mb` (MiB of a file) is shown, and enforced by whoever launches the page."""
    classifier = responder.classifier
    answer, near, text, plot = responder.waiting()
    with gr.Blocks(
        title="anymodal: which instrument?", analytics_enabled=False, delete_cache=(300, 900)
    ) as page:
        gr.HTML(
            '<header class="am-top"><h1>Which instrument?</h1>'
            "<p>From audio, an image or a video.</p></header>"
        )
        with gr.Row(elem_classes="am-main"):
            with gr.Column(scale=2, min_width=280):
                inputs = _inputs(responder, max_mb)
            with gr.Column(scale=3, min_width=280):
                outputs: list[Any] = [gr.HTML(answer, elem_id="am-answer")]
        outputs += [gr.HTML(near)]
        with gr.Row(elem_id="am-place", visible=responder.map is not None):
            with gr.Column(scale=2, min_width=280):
                outputs += [gr.HTML(text)]
            with gr.Column(scale=5, min_width=280):
                outputs += [gr.Plot(plot, show_label=False, container=False, elem_id="am-plot")]
        scores = classifier.facts.get("test_macro_f1_over_seeds") or {}
        count = len(classifier.classes)
        gr.HTML(render("facts", classes=count, facts=classifier.facts, scores=scores))
        for source, respond in inputs:
            _accept_uploads_only(source)
            source.change(
                respond,
                source,
                outputs,
                concurrency_limit=AT_WORK,
                concurrency_id="classify",
                trigger_mode="always_last",
                show_progress="minimal",
                show_progress_on=outputs[:1],
                api_visibility="private",
            )
    page.queue(max_size=WAITING, default_concurrency_limit=AT_WORK)
    return page


def theme() -> gr.themes.Base:
    """Gradio's plainest theme in the colours of the report, with the system's fonts."""
    names = {
        "body_background_fill": "paper",
        "background_fill_primary": "paper",
        "block_background_fill": "paper",
        "body_text_color": "ink",
        "body_text_color_subdued": "muted",
        "block_label_text_color": "muted",
        "border_color_primary": "rule",
        "link_text_color": "translated",
    }
    colours = {name: PALETTE[colour][0] for name, colour in names.items()}
    dark = {f"{name}_dark": PALETTE[colour][1] for name, colour in names.items()}
    return gr.themes.Base(
        font=["system-ui", "Segoe UI", "Noto Sans", "Helvetica Neue", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
        text_size="lg",
    ).set(**colours, **dark, color_accent=PALETTE["translated"][0])


def css(classes: int) -> str:
    """The page's style for a map of so many classes."""
    themes = (
        f"{where} {{ " + "; ".join(f"--am-{n}: {pair[t]}" for n, pair in PALETTE.items()) + " }\n"
        for t, where in enumerate((":root", ".dark"))
    )
    # Plotly draws a trace and a label per class, then rings and crosshairs with up to two labels
    ink = f"#am-plot .trace:nth-child(n+{classes + 1}) path {{stroke: var(--am-ink) !important}}\n"
    kept = "".join(f':not([data-index="{n}"])' for n in (classes, classes + 1))
    dimmed = (
        f'#am-place:has(input[value="{n}"]:checked) :is('
        f".trace:nth-child(-n+{classes}):not(:nth-child({n + 1})), "
        f'.annotation:not([data-index="{n}"]){kept}) {{opacity: .07 !important}}\n'
        for n in range(classes)
    )
    own = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return "".join((*themes, own, ink, *dimmed))


def _inputs(responder: Responder, max_mb: float) -> list[tuple[Any, Any]]:
    """The input components, each with its function of `responder`."""
    with gr.Tabs(elem_id="am-inputs"):
        with gr.Tab("File"):
            file = gr.File(
                label=f"Audio, image or video, up to {max_mb:g} MB", height=190, elem_id="am-file"
            )
        with gr.Tab("Audio"):
            audio = gr.Audio(
                sources=["microphone"],
                type="filepath",
                label="Record audio",
                # one of the usual ones sends the audio to another host
                buttons=[],
                editable=False,
                elem_id="am-audio",
            )
        with gr.Tab("Image"):
            image = gr.Image(
                sources=["webcam"],
                type="filepath",
                label="Capture an image",
                buttons=[],
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="am-image",
            )
            # Gradio would decode it with Pillow in this process, without limits
            image.preprocess = lambda payload: payload and payload.path  # type: ignore
        with gr.Tab("Video"):
            video = gr.Video(
                sources=["webcam"],
                label="Record a video",
                include_audio=True,
                buttons=[],
                # to mirror it, Gradio would run FFmpeg in this process, without limits
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="am-video",
            )
    recorded = ((part, responder.recording) for part in (audio, image, video))
    return [(file, responder.file), *recorded]


def _accept_uploads_only(part: gr.components.Component) -> None:
    """Keep Gradio from fetching a file for whoever sends an address in place of one."""
    move = part.async_move_resource_to_block_cache

    async def local(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("send a file, not an address")
        return await move(path)

    part.async_move_resource_to_block_cache = local  # type: ignore[method-assign, assignment]
