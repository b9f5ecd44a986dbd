"""What the messages of yt-dlp and ffmpeg amount to."""

from __future__ import annotations

import pytest

from anymodal.data.audioset.status import FetchError, Status, error_of


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("[youtube] aaaaaaaaaaa: Video unavailable", "gone"),
        ("This video is no longer available because the YouTube account associated with this "
         "video has been terminated.", "gone"),
        ("This video is no longer available due to a copyright claim by X", "gone"),
        ("This video has been removed for violating YouTube's WorkerConfig of Service", "gone"),
        ("This live stream recording is not available.", "gone"),
        ("HTTP Error 404: Not Found", "gone"),
        ("HTTP Error 410: Gone", "gone"),
        ("Private video. Sign in if you've been granted access to this video", "private"),
        ("This video is available to this channel's members on level: Fan. Join this channel to "
         "get access to members-only content", "private"),
        ("Sign in to confirm your age. This video may be inappropriate for some users.", "age"),
        ("The uploader has not made this video available in your country", "blocked"),
        ("Video unavailable. This video contains content from X, who has blocked it in your "
         "country on copyright grounds", "blocked"),
        ("Video unavailable. This video contains content from X, who has blocked it on copyright "
         "grounds", "blocked"),
        ("HTTP Error 451: Unavailable For Legal Reasons", "blocked"),
        ("moov atom not found\nInvalid data found when processing input", "broken"),
        ("Unsupported URL: http://127.0.0.1/", "broken"),
        # nothing of this is the video's fault
        ("Sign in to confirm you’re not a bot. Use --cookies", "failed"),
        ("Video unavailable. This content isn't available, try again later. The current session "
         "has been rate-limited by YouTube", "failed"),
        ("Requested format is not available. Use --list-formats", "failed"),
        ("The following content is not available on this app.", "failed"),
        ("Only images are available for download.", "failed"),
        ("Decoder (codec av1) not found for input stream #0:0", "failed"),
        ("HTTP Error 403: Forbidden", "failed"),
        ("HTTP Error 503: Service Unavailable", "failed"),
        ("Server returned 404 Not Found", "failed"),
        ("Connection timed out", "failed"),
        ("[Errno -3] Temporary failure in name resolution", "failed"),
        ("something that nobody has seen before", "failed"),
        ("", "failed"),
    ],
)  # fmt: skip
def test_words_are_read(words, status):
    error = error_of(f"ERROR: [youtube] 429404451-x: {words}")
    assert error.status == status
    if status in ("gone", "private", "age", "blocked"):
        assert not error.again
    if status == "failed":
        assert error.again
    assert error.throttled == any(each in words for each in ("bot", "rate-limited"))


def test_a_status_outweighs_words():
    def read(status, text="Video unavailable"):
        return error_of(text, status, 7.0)

    assert [read(each).status for each in (404, 410, 401, 451)] == [
        "gone", "gone", "private", "blocked",
    ]  # fmt: skip
    assert [read(each).status for each in (403, 408, 500, 502, 503)] == ["failed"] * 5
    assert read(429).throttled
    assert read(429).after_s == 7.0
    # the site's service, not the video's page
    assert read(404, "Unable to download API page: HTTP Error 404").status == "failed"
    assert "403" in str(read(403))


def test_an_error_is_one_short_line():
    text = str(
        FetchError(Status.FAILED, "\x1b[0;31mERROR:\x1b[0m a\nb [http @ 0x55ae] c " + "d" * 999)
    )
    assert text.startswith("a b c d")
    assert len(text) == 300
