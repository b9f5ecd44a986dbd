"""ffmpeg as a child process: the wanted second of a file or an address.

Unlike PyAV, a child process can be killed when its time is up, and a decoder that crashes takes
nothing else down. yt-dlp's `download_ranges` has no time limit and hides ffmpeg's messages.

Time 0 of a cut is the start of the wanted second, to the sample. It holds
    audio    48 kHz, the source's channels, PCM; gaps filled with silence; earlier samples are
             decoded and dropped, so that codec and resampler are in step at 0
    images   50 frames a second without loss, each the one on display at its time
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.status import FetchError, Status, error_of

SAMPLE_RATE, FRAME_RATE = 48_000, 50
"""Hz of a cut's audio, and its frames a second, each at most 1/50 s older than its time."""
_LEAD_S = 1.0
"""Read before the second, for codecs that need earlier packets (Opus: 0.08 s)."""


@dataclass(frozen=True)
class Input:
    """One file or address that ffmpeg reads."""

    source: str
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: str = ""
    """As ffmpeg takes them: `name=value; path=…; domain=…;`, one a line."""

    @property
    def remote(self) -> bool:
        """Whether it is an address."""
        return not self.source.startswith("file:")


def find_ffmpeg() -> str:
    """Path of ffmpeg: that of the system, else that of PyPI's imageio-ffmpeg."""
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise AnymodalError(
            "no ffmpeg: install it (apt install ffmpeg, brew install ffmpeg) or run "
            "pip install 'anymodal[audioset]', which brings one"
        ) from error


def cut(
    inputs: Sequence[Input],
    start_s: float,
    duration_s: float,
    into: Path,
    *,
    timeout_s: float,
    stall_s: float,
    ffmpeg: str | None = None,
) -> Path:
    """Write [start_s, start_s + duration_s) of `inputs` to a file in `into`, and return its path.

    inputs: one source of both, or one of the images and one of the audio. Where the source ends
    early the file is shorter, too. Raises `FetchError`.
    """
    target = into / "cut.mkv"
    command = [ffmpeg or find_ffmpeg(), "-nostdin", "-hide_banner", "-v", "error", "-y"]
    seek = max(0.0, start_s - _LEAD_S)
    lead = start_s - seek
    for each in inputs:
        command += _input_options(each, stall_s)
        # a seek to 0 may skip the first packet of AAC
        if seek > 0:
            # an accurate one would drop the frame that is on display since before
            command += ["-noaccurate_seek", "-ss", f"{seek:.6f}"]
        command += ["-i", each.source]
    # V leaves out the covers of songs, which v would take for a video
    command += ["-map", "0:V:0", "-map", f"{len(inputs) - 1}:a:0"]
    samples = round(duration_s * SAMPLE_RATE)
    command += [
        "-vf",
        f"setpts=PTS-{lead:.6f}/TB,fps={FRAME_RATE}:round=up:start_time=0,trim=end={duration_s:.6f}",
        "-af",
        f"aresample={SAMPLE_RATE}:async=1,asetpts=PTS-{round(lead * SAMPLE_RATE)},"
        f"atrim=start_pts=0:end_pts={samples}",
    ]
    command += ["-c:v", "ffvhuff", "-c:a", "pcm_f32le", "-map_metadata", "-1"]
    command += ["-f", "matroska", str(target)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(Status.FAILED, f"reading it took more than {timeout_s:g} s") from error
    except OSError as error:
        raise AnymodalError(f"cannot run {command[0]}: {error.strerror or error}") from error
    message = done.stderr.decode("utf-8", "replace")
    for each in inputs:
        if each.remote:  # addresses are long and may contain keys
            message = message.replace(each.source, "the address")
    # the last lines say what ended it; before them may be many warnings of the decoder
    message = "\n".join(message.splitlines()[-12:])
    if "No space left on device" in message:
        raise AnymodalError(f"no space left on the disk of {into}; free some and run again")
    if "matches no streams" in message:
        lacks = "image" if "'0:V:0'" in message else "audio"
        raise FetchError(Status.BROKEN, f"it has no {lacks}", again=False)
    if done.returncode != 0:
        raise error_of(message or f"ffmpeg ended with status {done.returncode}")
    if not target.is_file() or not target.stat().st_size:
        raise FetchError(Status.BROKEN, message or "ffmpeg wrote nothing")
    return target


def _input_options(each: Input, stall_s: float) -> list[str]:
    # a play list may name other sources: those on the net may not name files, nor files the net
    if not each.remote:
        return ["-protocol_whitelist", "file,crypto,data"]
    options = ["-protocol_whitelist", "http,https,tcp,tls,crypto,data,httpproxy"]
    options += ["-rw_timeout", str(round(stall_s * 1_000_000))]
    headers = "".join(f"{name}: {text}\r\n" for name, text in each.headers.items())
    options += ["-cookies", each.cookies] if each.cookies else []
    return options + (["-headers", headers] if headers else [])
