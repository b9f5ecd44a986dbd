"""Starts the page and ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from anymodal.app.media_folder import MediaFolder
from anymodal.app.security import Guarded
from anymodal.errors import AnymodalError
from anymodal.serve.decoding import DecoderPool
from anymodal.serve.limits import MIB, ServeLimits

if TYPE_CHECKING:
    from anymodal.model import ModalityAgnosticClassifier

MOMENTS = 30
"""Moments of an item that are looked at: people wait for the answer."""
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" '
    'rx="7" fill="#0a5ea8"/><circle cx="11" cy="20" r="5" fill="#fcfcfb"/><rect x="17.5" y="8.5" '
    'width="8" height="8" fill="none" stroke="#fcfcfb" stroke-width="2.5"/></svg>'
)


@dataclass(frozen=True)
class Settings:
    """Where the page is served, and of what; what cannot be raises `AnymodalError` at once."""

    media: Path | None = None
    """The dataset's folder, if its media are at hand."""
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
        _free(self.host, self.port)

    def limits(self) -> ServeLimits:
        """What one file may cost, in a decoder process of its own."""
        size = int(self.max_mb * MIB)
        return ServeLimits(
            file_bytes=size,
            request_bytes=size,
            held_bytes=2 * size,
            decoders=2,
            decode_s=30.0,
            decoder_bytes=2048 * MIB,
            moments=MOMENTS,
        )


def run(
    classifier: ModalityAgnosticClassifier, settings: Settings, tell: Callable[[str], None]
) -> None:
    """Serve the page until SIGINT or SIGTERM; `tell` is called with its address once it answers.

    What users send lies in a temporary folder of this process, is deleted after 15 to 20 minutes,
    and with the process.
    """
    folder = MediaFolder(settings.media) if settings.media is not None else None
    limits = settings.limits()
    # read when Gradio is imported
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    ended = threading.Event()
    with contextlib.ExitStack() as stack:
        uploads = stack.enter_context(tempfile.TemporaryDirectory(prefix="anymodal-app-"))
        os.environ["GRADIO_TEMP_DIR"] = uploads
        from anymodal.app import page as pages

        icon = Path(uploads) / "icon.svg"
        icon.write_text(ICON, encoding="utf-8")
        stack.enter_context(_ending(ended))
        pool = DecoderPool(classifier.sample_rate, limits)
        stack.callback(pool.close)
        pool.start()
        page = pages.build_page(classifier, folder, pool.decode, settings.max_mb)
        stack.callback(page.close, verbose=False)
        _, address, _ = page.launch(
            server_name=settings.host,
            server_port=_free(settings.host, settings.port),
            max_file_size=limits.file_bytes,
            theme=pages.theme(),
            css=pages.css(),
            js=pages.ON_LOAD,
            footer_links=[],
            favicon_path=icon,
            share=False,
            quiet=True,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            prevent_thread_lock=True,
            app_kwargs={"middleware": [Middleware(Guarded)], "docs_url": None, "redoc_url": None,
                        "openapi_url": None},
        )  # fmt: skip
        tell(address)
        ended.wait()


@contextlib.contextmanager
def _ending(ended: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `ended`."""
    kept = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _free(host: str, port: int) -> int:
    """The port, or any free one for 0; `AnymodalError` where it cannot be had."""
    try:
        with socket.create_server((host, port)) as taken:
            return int(taken.getsockname()[1])
    except OSError as error:
        raise AnymodalError(
            f"cannot listen on {host}:{port} ({error.strerror}); give another --port or --host"
        ) from error
