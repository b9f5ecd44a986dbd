"""Starts the page and ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from anymodal.app.media_folder import MediaFolder
from anymodal.app.security import SecurityHeaders
from anymodal.core.errors import AnymodalError
from anymodal.serve.decoding import DecoderPool
from anymodal.serve.limits import MIB, ServeLimits
from anymodal.serve.server import listen

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier

WINDOWS = 30
"""Windows of an item that are classified, spread evenly: people wait for the answer."""


@dataclass(frozen=True)
class Settings:
    """Where the page is served, and its options; invalid ones raise `AnymodalError` at once."""

    media: Path | None = None
    """The dataset's folder."""
    host: str = "127.0.0.1"
    port: int = 7860
    """0 for any free one."""
    max_mb: float = 50
    """MiB of a file."""

    def __post_init__(self) -> None:
        if self.media is not None:
            MediaFolder(self.media)
        if not 0 < self.max_mb <= 1024:
            raise AnymodalError(f"--max-mb must be more than 0, at most 1024, not {self.max_mb:g}")
        _free_port(self.host, self.port)

    def limits(self) -> ServeLimits:
        """Limits of one file, which is decoded in a separate process."""
        size = int(self.max_mb * MIB)
        return ServeLimits(
            file_bytes=size,
            request_bytes=size,
            held_bytes=2 * size,
            decoders=2,
            decode_s=30.0,
            decoder_bytes=2048 * MIB,
            windows=WINDOWS,
        )


def run(
    classifier: ModalityAgnosticClassifier, settings: Settings, on_ready: Callable[[str], None]
) -> None:
    """Serve the page until SIGINT or SIGTERM; `on_ready` is called with its address.

    Uploads are kept in a temporary folder, each for 15 to 20 minutes, the folder to the end.
    """
    limits = settings.limits()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        uploads = stack.enter_context(tempfile.TemporaryDirectory(prefix="anymodal-app-"))
        # Gradio reads both when it is imported
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = uploads
        from anymodal.app import page as pages
        from anymodal.app.responder import Responder

        pool = DecoderPool(classifier.sample_rate, limits)
        stack.callback(pool.close)
        pool.start()
        media = MediaFolder(settings.media) if settings.media is not None else None
        responder = Responder(classifier, media, pool.decode)
        page = pages.build_page(responder, settings.max_mb)
        stack.callback(page.close, verbose=False)
        _, address, _ = page.launch(
            server_name=settings.host,
            server_port=_free_port(settings.host, settings.port),
            max_file_size=limits.file_bytes,
            theme=pages.theme(),
            css=pages.css(len(responder.map.classes) if responder.map else 0),
            js=pages.ON_LOAD,
            footer_links=[],
            favicon_path=Path(__file__).with_name("icon.svg"),
            share=False,
            quiet=True,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            prevent_thread_lock=True,
            app_kwargs={"middleware": [Middleware(SecurityHeaders)], "docs_url": None,
                        "redoc_url": None, "openapi_url": None},
        )  # fmt: skip
        on_ready(address)
        stop.wait()


def _free_port(host: str, port: int) -> int:
    """The port, or any free one for 0; `AnymodalError` if it is taken."""
    with listen(host, port)[0] as listening:
        return int(listening.getsockname()[1])
