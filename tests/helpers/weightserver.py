"""A publisher on this machine: an HTTP server whose answers a test writes down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


def whole(content: bytes, kind: str = "application/octet-stream", at: int | None = None) -> Answer:
    """Everything, with its length; with `at`, a connection that drops after so many bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _head(handler, len(content), kind)
        handler.wfile.write(content[:at])

    return answer


def cut_chunks(content: bytes) -> Answer:
    """No length; a chunk, and a line that drops before the last one."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    return answer


def held(content: bytes, at: int, go_on: threading.Event) -> Answer:
    """`at` bytes, and the rest when `go_on` is set."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _head(handler, len(content))
        handler.wfile.write(content[:at])
        handler.wfile.flush()
        go_on.wait(30)
        handler.wfile.write(content[at:])

    return answer


def status(code: int) -> Answer:
    """An error of the server's."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


class Publisher:
    """Answers in order, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked = 0
        self.url = ""

    def says(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), 0


@contextmanager
def serving() -> Iterator[Publisher]:
    """A publisher that listens on the loopback."""
    publisher = Publisher()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = publisher.answers[min(publisher.asked, len(publisher.answers) - 1)]
            publisher.asked += 1
            self.close_connection = True
            with suppress(OSError):  # the other side was killed
                answer(self)

        def log_message(self, *_words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    publisher.url = f"http://127.0.0.1:{server.server_port}/weights.bin"
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _head(
    handler: BaseHTTPRequestHandler, length: int, kind: str = "application/octet-stream"
) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
