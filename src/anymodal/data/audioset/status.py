"""What became of a clip, and how what yt-dlp and ffmpeg say is read.

Verdicts
--------
done        the clip lies in a shard
gone        removed, deleted, account closed, never there (404, 410)
private     private, for members, or to be paid for
age         only after signing in to prove an age
blocked     kept from this country, or by a claim on its copyright (451)
broken      no sound, no picture, undecodable, or shorter than the wanted second
duplicate   the same bytes as another clip (a re-upload, or silence over black)
absent      not in the folder given with --local
failed      anything that may pass: time-outs, 403, 429, 5xx, lost connections, unknown words
outage      failed amid an unbroken run of failures: says nothing about the video
lost        once done, but its shard is no longer there

A video that is gone, private, age or blocked is so for each of its seconds; the other verdicts
hold for the one clip. Words nobody foresaw count as `failed`, which costs another try and loses
nothing, never as a lasting verdict.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Verdict(StrEnum):
    """See the module's list."""

    DONE = "done"
    GONE = "gone"
    PRIVATE = "private"
    AGE = "age"
    BLOCKED = "blocked"
    BROKEN = "broken"
    DUPLICATE = "duplicate"
    ABSENT = "absent"
    FAILED = "failed"
    OUTAGE = "outage"
    LOST = "lost"


OF_THE_VIDEO = frozenset({Verdict.GONE, Verdict.PRIVATE, Verdict.AGE, Verdict.BLOCKED})
"""Hold for every second of the video."""
LASTING = OF_THE_VIDEO | {Verdict.BROKEN, Verdict.DUPLICATE}
"""Never tried again from the same kind of source."""
DEAD = LASTING | {Verdict.ABSENT}
"""Replaced from the reserve."""


class FetchError(Exception):
    """A clip could not be had.

    Attributes: `verdict`; `again`, whether another try may help; `throttled`, whether the other
    side asks for a pause; `after_s`, the pause that it names, if any.
    """

    def __init__(
        self,
        verdict: Verdict,
        text: str,
        *,
        again: bool | None = None,
        throttled: bool = False,
        after_s: float | None = None,
    ) -> None:
        super().__init__(_line(text))
        self.verdict = verdict
        self.again = verdict in (Verdict.FAILED, Verdict.BROKEN) if again is None else again
        self.throttled = throttled
        self.after_s = after_s


# What ffmpeg says of a media address ("Server returned 404 Not Found") is no verdict on the video,
# whose page is there: addresses expire, and the next try gets new ones.
# Order matters: "Sign in to confirm you're not a bot", "content isn't available, try again later"
# and "requested format is not available" are no verdicts on the video, but sound like some
_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        (
            "throttled",
            r"(error|returned) 429|too many requests|not a bot|try again later|rate.?limit"
            r"|unusual traffic",
        ),
        (
            # of the tool, not of the video: a missing decoder or script engine, an outdated yt-dlp
            "failed",
            r"requested format|no video formats|only images are available|on this app"
            r"|decoder .*not found",
        ),
        (
            "private",
            r"private video|video is private|members.only|join this channel|premium members"
            r"|requires payment|rent(al)? or purchase|error 401",
        ),
        (
            "age",
            r"confirm your age|age.?restrict|inappropriate for some users|sign in to|log ?in"
            r" required|login is required|account cookies",
        ),
        (
            "blocked",
            r"(available|blocked?).{0,40}\b(country|location|region|territory)\b|geo.?restrict"
            r"|blocked it|copyright grounds|error 451",
        ),
        (
            "gone",
            r"error (404|410)|video unavailable"
            r"|(is|was) (no longer|not|isn.t) available|isn.t available|has been (removed|deleted"
            r"|terminated)|does not exist|removed by|incomplete youtube id|copyright claim"
            r"|live (stream|event)|premieres in",
        ),
        (
            "streamless",
            r"does not contain any stream|unsupported url",
        ),
        (
            "broken",
            r"invalid data found|moov atom not found|could not find codec param|partial file"
            r"|error (while )?decoding|nothing was (encoded|written)",
        ),
    )
)


def read_words(text: str, status: int | None = None, after_s: float | None = None) -> FetchError:
    """The error that `text` of yt-dlp or ffmpeg amounts to.

    `status` is the HTTP status where it is known (it outweighs the words), `after_s` the pause
    that the server asked for.
    """
    if status is not None:
        text = f"{text} (HTTP Error {status})" if str(status) not in text else text
        if status == 429:
            return FetchError(Verdict.FAILED, text, throttled=True, after_s=after_s)
        # a video's own page that is not there, not some service behind it
        if status in (404, 410) and "API page" not in text:
            return FetchError(Verdict.GONE, text)
        if status == 401:
            return FetchError(Verdict.PRIVATE, text)
        if status == 451:
            return FetchError(Verdict.BLOCKED, text)
        return FetchError(Verdict.FAILED, text, after_s=after_s)
    for name, pattern in _WORDS:
        if pattern.search(text):
            if name == "throttled":
                return FetchError(Verdict.FAILED, text, throttled=True, after_s=after_s)
            if name == "streamless":
                return FetchError(Verdict.BROKEN, text, again=False)
            return FetchError(Verdict(name), text)
    return FetchError(Verdict.FAILED, text)


def _line(text: str) -> str:
    """One line without colours and memory addresses, short enough for a ledger."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    plain = re.sub(r"\[[^\[\]]* @ 0x[0-9a-f]+\]| \(caused by .*", "", plain, flags=re.DOTALL)
    plain = " ".join(plain.split()).removeprefix("ERROR: ")
    return plain if len(plain) <= 300 else plain[:297] + "..."
