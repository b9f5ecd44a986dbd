"""Videos from YouTube (or wherever the address template leads) by yt-dlp and ffmpeg.

yt-dlp finds the addresses of a video's media; ffmpeg reads just the wanted second from there.

Use the newest yt-dlp, with its extra `default` and a JavaScript runtime such as deno; formats that
are not found without them count as a temporary failure.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.ffmpeg import Input, cut, find_ffmpeg
from anymodal.data.audioset.status import FetchError, Status, error_of

YOUTUBE = "https://www.youtube.com/watch?v={id}"

# the audio-only fall-back distinguishes a song from a video of which nothing can be read
_FORMAT = "bv*+ba/b/ba"
# errors are raised as exceptions
_SILENT = logging.Logger("yt-dlp", level=logging.CRITICAL + 1)
_RUNTIME = "YouTube needs a JavaScript runtime: see https://github.com/yt-dlp/yt-dlp/wiki/EJS"


class YtDlpDownloader:
    """Fetches from the address that `url_template` gives for an `{id}`.

    timeout_s and stall_s limit one fetch and the time without data. The stream chosen is the
    largest with a short side of at most `height` pixels, or the smallest there is.
    """

    name = "yt-dlp"
    remote = True

    def __init__(
        self,
        url_template: str = YOUTUBE,
        *,
        timeout_s: float = 120.0,
        stall_s: float = 20.0,
        height: int = 360,
    ) -> None:
        if "{id}" not in url_template:
            raise AnymodalError(f"the address template {url_template!r} holds no {{id}}")
        self._template = url_template
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._ffmpeg = find_ffmpeg()
        self._options = {
            "quiet": True,
            "no_warnings": True,
            "noprogress": True,
            "noplaylist": True,
            "playlist_items": "1",
            "logger": _SILENT,
            "format": _FORMAT,
            # plain http before play lists of fragments: one connection, and byte ranges
            "format_sort": [f"res:{height}", "proto"],
            "socket_timeout": stall_s,
            # `retry` counts and spaces the attempts
            "retries": 0,
            "extractor_retries": 0,
            "ffmpeg_location": self._ffmpeg,
        }
        # the first client loads yt-dlp's plug-ins, which threads must not do at the same time
        self._client()

    def fetch(self, video_id: str, start_s: float, duration_s: float, into: Path) -> Path:
        """See `anymodal.data.audioset.downloader.Downloader`."""
        end = time.monotonic() + self._timeout_s
        inputs = _within(self._timeout_s, lambda: self._find(video_id))
        limits = {"timeout_s": max(0.1, end - time.monotonic()), "stall_s": self._stall_s}
        return cut(inputs, start_s, duration_s, into, **limits, ffmpeg=self._ffmpeg)

    def _client(self) -> Any:
        try:
            import yt_dlp
        except ImportError as error:
            raise AnymodalError("no yt-dlp: run pip install 'anymodal[audioset]'") from error
        return yt_dlp.YoutubeDL(self._options)

    def _find(self, video_id: str) -> list[Input]:
        """Addresses of a video's media: one of both, or one of the images and one of the audio."""
        with self._client() as client:
            try:
                info = client.extract_info(self._template.format(id=video_id), download=False)
            # an extractor that meets a page it was not made for may raise anything
            except Exception as error:
                raise _meaning(error) from error
            if info and info.get("entries"):
                info = next(iter(info["entries"]), None)
            if not info:
                raise FetchError(Status.BROKEN, "the address holds no video", again=False)
            if info.get("is_live"):
                raise FetchError(Status.GONE, "a live stream, not a recording")
            formats = info.get("requested_formats") or [info]
            if formats[0].get("vcodec") == "none":
                # where a site offers several formats, the others may just not have been found
                if not info.get("direct"):
                    raise FetchError(Status.FAILED, f"no video among its formats; {_RUNTIME}")
                raise FetchError(Status.BROKEN, "audio without images", again=False)
            headers = [each.get("http_headers") or info.get("http_headers") for each in formats]
            return [
                Input(each["url"], header or {}, _cookies(client, each["url"]))
                for each, header in zip(formats, headers, strict=True)
            ]


def _meaning(error: Exception) -> FetchError:
    """What an exception of yt-dlp says about the video."""
    import yt_dlp

    if not isinstance(error, yt_dlp.utils.YoutubeDLError):
        return FetchError(Status.FAILED, f"{type(error).__name__}: {error}")
    text = str(error)
    chain: list[Any] = [error]
    if getattr(error, "exc_info", None):
        chain.append(error.exc_info[1])  # type: ignore[attr-defined]
    chain += [cause for each in list(chain) if (cause := getattr(each, "cause", None)) is not None]
    for each in chain:
        if isinstance(each, yt_dlp.utils.GeoRestrictedError):
            return FetchError(Status.BLOCKED, text)
        if isinstance(each, yt_dlp.networking.exceptions.HTTPError):
            return error_of(text, each.status, _pause(each.response.get_header("Retry-After")))
    for each in chain:
        if isinstance(each, yt_dlp.networking.exceptions.TransportError):
            return FetchError(Status.FAILED, text)
    if "requested format" in text.lower():
        text = f"{text.partition('. Use')[0]}; {_RUNTIME}"
    return error_of(text)


def _pause(header: str | None) -> float | None:
    """Seconds of a Retry-After header; a date is ignored."""
    return float(header) if header and header.strip().isdecimal() else None


def _cookies(client: Any, url: str) -> str:
    return "".join(
        f"{each.name}={each.value}; path={each.path}; domain={each.domain};\r\n"
        for each in client.cookiejar.get_cookies_for_url(url)
    )


def _within(seconds: float, work: Callable[[], list[Input]]) -> list[Input]:
    """Do `work`, but wait no longer than `seconds`; yt-dlp limits each wait for data alone.

    A thread that is late is left to end by itself.
    """
    future: Future[list[Input]] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="yt-dlp").start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise FetchError(
            Status.FAILED, f"finding its address took more than {seconds:g} s"
        ) from error
