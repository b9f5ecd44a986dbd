"""A video site on the loopback, with the faults of the real ones.

`<address>/<id>.mp4` answers as the id was set up: whole files with byte ranges, and faults for
the first few requests, or for all.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar


@dataclass
class Page:
    """One id. `fault` holds for the first `times` requests (None: for all)."""

    content: bytes = b""
    kind: str = "video/mp4"
    fault: str = ""
    """A status such as `404`, or stall, drip, cut, drop, or '' for none."""
    times: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0
    """Requests that are answered well before the fault."""
    delay_s: float = 0.0
    ranges: bool = True


class Site:
    """Serves `pages` until it is closed; counts requests."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: Counter[str] = Counter()
        self.closing = threading.Event()
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"site": self})
        self._server = _Quiet(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def template(self) -> str:
        """Address of a video, for `YtDlpDownloader`."""
        return f"http://127.0.0.1:{self.port}/{{id}}.mp4"

    def arrive(self, name: str) -> int:
        """Count a request; its number for this id, from 0."""
        with self._lock:
            self.requests[name] += 1
            return self.requests[name] - 1

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Clients that hang up are what ffmpeg does once it has what it wants."""


class _Handler(BaseHTTPRequestHandler):
    site: ClassVar[Site]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            self._answer()

    def _answer(self) -> None:
        name = self.path.strip("/").partition(".")[0]
        number = self.site.arrive(name)
        page = self.site.pages.get(name)
        if page is None:
            return self._status(404)
        if page.delay_s:
            self.site.closing.wait(page.delay_s)
        active = number >= page.after and (page.times is None or number < page.after + page.times)
        fault = page.fault if active else ""
        if fault.isdecimal():
            return self._status(int(fault), page.headers)
        if fault == "drop":
            self.close_connection = True
            return None
        if fault == "stall":
            self.site.closing.wait(30)
            self.close_connection = True
            return None
        return self._content(page, fault)

    def _status(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, page: Page, fault: str) -> None:
        content, begin = page.content, 0
        asked = self.headers.get("Range", "")
        if page.ranges and asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin = int(first)
            end = int(last) + 1 if last else len(content)
            if begin >= len(content):
                return self._status(416)
            body = content[begin:end]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        else:
            body = content
            self.send_response(200)
        if page.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut":
            # half of the file, wherever the request began
            body = body[: max(0, len(content) // 2 - begin)]
            self.close_connection = True
        elif fault == "drip":
            for at in range(0, len(body), 16):
                self.wfile.write(body[at : at + 16])
                if self.site.closing.wait(0.05):
                    return None
        self.wfile.write(body)
        return None
