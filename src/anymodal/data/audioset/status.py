"""The status of a clip, and how the messages of yt-dlp and ffmpeg are read.

Unknown messages count as `failed`, which costs another attempt, never as a lasting status.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Status(StrEnum):
    """What became of a clip."""

    DONE = "done"  # in a shard
    GONE = "gone"  # removed, deleted, account closed, never there (404, 410)
    PRIVATE = "private"  # private, for members, or to be paid for
    AGE = "age"  # only after signing in to prove an age
    BLOCKED = "blocked"  # not available in this country, or by a claim on its copyright (451)
    BROKEN = "broken"  # no audio, no image, undecodable, or shorter than the wanted second
    DUPLICATE = "duplicate"  # the same bytes as another clip (a re-upload, or silence over black)
    ABSENT = "absent"  # not in the folder given with --local
    FAILED = "failed"  # temporary: time-outs, 403, 429, 5xx, lost connections, unknown messages
    OUTAGE = "outage"  # failed in an unbroken run of failures: says nothing about the video
    LOST = "lost"  # once done, but its shard is no longer there


OF_THE_VIDEO = frozenset({Status.GONE, Status.PRIVATE, Status.AGE, Status.BLOCKED})
"""Hold for every second of the video."""
LASTING = OF_THE_VIDEO | {Status.BROKEN, Status.DUPLICATE}
"""Never fetched again from the same kind of source."""
DEAD = LASTING | {Status.ABSENT}
"""Replaced from the reserve."""


class FetchError(Exception):
    """A clip could not be fetched.

    again: whether another attempt may help. throttled: whether the server asks for a pause.
    after_s: the pause that it names.
    """

    def __init__(
        self,
        status: Status,
        text: str,
        *,
        again: bool | None = None,
        throttled: bool = False,
        after_s: float | None = None,
    ) -> None:
        super().__init__(_line(text))
        self.status = status
        self.again = status in (Status.FAILED, Status.BROKEN) if again is None else again
        self.throttled = throttled
        self.after_s = after_s


# What ffmpeg says of a media address ("Server returned 404 Not Found") says nothing about the
# video, whose page is there: addresses expire, and the next attempt gets new ones.
# Order matters: "Sign in to confirm you're not a bot", "content isn't available, try again later"
# and "requested format is not available" are temporary, but look like lasting ones
_MESSAGES = {
    "throttled": r"(error|returned) 429|too many requests|not a bot|try again later|rate.?limit"
    r"|unusual traffic",
    # of the tool, not of the video: a missing decoder or script engine, an outdated yt-dlp
    "failed": r"requested format|no video formats|only images are available|on this app"
    r"|decoder .*not found",
    "private": r"private video|video is private|members.only|join this channel|premium members"
    r"|requires payment|rent(al)? or purchase|error 401",
    "age": r"confirm your age|age.?restrict|inappropriate for some users|sign in to|log ?in"
    r" required|login is required|account cookies",
    "blocked": r"(available|blocked?).{0,40}\b(country|location|region|territory)\b|geo.?restrict"
    r"|blocked it|copyright grounds|error 451",
    "gone": r"error (404|410)|video unavailable|(is|was) (no longer|not|isn.t) available"
    r"|isn.t available|has been (removed|deleted|terminated)|does not exist|removed by"
    r"|incomplete youtube id|copyright claim|live (stream|event)|premieres in",
    "streamless": r"does not contain any stream|unsupported url",
    "broken": r"invalid data found|moov atom not found|could not find codec param|partial file"
    r"|error (while )?decoding|nothing was (encoded|written)",
}
_HTTP = {401: Status.PRIVATE, 404: Status.GONE, 410: Status.GONE, 451: Status.BLOCKED}


def error_of(text: str, http: int | None = None, after_s: float | None = None) -> FetchError:
    """The error that a message of yt-dlp or ffmpeg amounts to; the status `http` outweighs it."""
    if http is not None:
        text = f"{text} (HTTP Error {http})" if str(http) not in text else text
        status = _HTTP.get(http, Status.FAILED)
        # a video's own page that is not there, not some service behind it
        if status is Status.GONE and "API page" in text:
            status = Status.FAILED
        return FetchError(status, text, throttled=http == 429, after_s=after_s)
    matches = (n for n, pattern in _MESSAGES.items() if re.search(pattern, text, re.IGNORECASE))
    match next(matches, "failed"):
        case "throttled":
            return FetchError(Status.FAILED, text, throttled=True, after_s=after_s)
        case "streamless":
            return FetchError(Status.BROKEN, text, again=False)
        case name:
            return FetchError(Status(name), text)


def _line(text: str) -> str:
    """One line without colours and memory addresses, at most 300 characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    plain = re.sub(r"\[[^\[\]]* @ 0x[0-9a-f]+\]| \(caused by .*", "", plain, flags=re.DOTALL)
    plain = " ".join(plain.split()).removeprefix("ERROR: ")
    return plain if len(plain) <= 300 else plain[:297] + "..."
