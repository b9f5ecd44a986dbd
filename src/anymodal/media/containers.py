"""Audio and video frames from containers (MP4, WebM, AVI, ...), by FFmpeg through PyAV.

Times are in seconds from the start that the container declares, so audio and image share one clock.
Callers use `anymodal.media.decoding`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, Literal

import av
import numpy as np
from av.container import InputContainer

from anymodal.core.errors import MediaError

# no playlists and the like: they would make FFmpeg open other files and addresses
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,ogg,mp3,aac,ac3,eac3,flac,wav,"
    "aiff,caf,amr,mxf,rm,wv,ape"
)
# tags need not be UTF-8; PyAV 19 keeps them whatever they are
_OPTIONS: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "ignore"}
)
_SEEK_MARGIN_S = 0.5
"""Decoders need a few packets before they are in step."""
_SEEK_BACK_S = 12.0
"""Longer than the usual distance between key frames."""
_TOLERANCE_S = 0.02
"""A smaller difference between time stamp and sample count is rounding (Matroska stamps whole
milliseconds, and encoders drift); a larger one is a gap or an overlap."""
_LONGEST_GAP_S = 3600.0
"""A longer gap is a damaged time stamp."""
_END_S = 10.0
"""How far before its declared end a video's last packets are searched."""
_HOLD_S = 1.0
"""How long the last frame stays on display when it does not say."""
_ROUNDING_S = 1e-6
_BAD_PACKETS = 100
"""Undecodable packets to skip before a stream is given up."""


class Streams:
    """The streams of one container.

    Every method opens the container anew, because a decoder keeps state from earlier seeks.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def kind(self) -> Literal["audio", "video"]:
        """`video` if video can be decoded, else `audio` if audio can be."""
        with self._open() as container:
            stream = _video_stream(container)
            if stream is not None and next(_frames(container, stream), None) is not None:
                return "video"
        with self._open() as container:
            streams = container.streams.audio
            if streams and next(_frames(container, streams[0]), None) is not None:
                return "audio"
        raise MediaError("neither audio nor video can be decoded")

    def audio(self) -> ContainerAudio:
        """The first audio track."""
        return ContainerAudio(self)

    def seconds(self) -> float:
        """Length of the video, to the end of its last frame.

        Searched near the end that the container declares, which may be that of the audio; where
        there is no frame, all packets are read.
        """
        with self._open() as container:
            stream = _needed_video_stream(container)
            origin = _origin(container)
            declared = 0.0 if container.duration is None else container.duration / av.time_base
            for begin in (max(0.0, declared - _END_S), 0.0):
                if begin > 0:
                    _seek(container, stream, begin + origin)
                else:
                    container.seek(0)
                ends = [
                    float((stamp + (packet.duration or 0)) * packet.time_base)
                    for packet in container.demux(stream)
                    if packet.size
                    and (stamp := packet.dts if packet.pts is None else packet.pts) is not None
                ]
                if ends:
                    return max(0.0, max(ends) - origin)
        raise MediaError("no video frame can be decoded")

    def frame(self, at_s: float, max_pixels: int) -> np.ndarray:
        """The video frame on display at a time, uint8 (height, width, 3), upright."""
        # without an index (MPEG-TS), a seek may end past the frame that decoding starts from
        for begin in dict.fromkeys((at_s, max(0.0, at_s - _SEEK_BACK_S), 0.0)):
            with self._open() as container:
                stream = _needed_video_stream(container)
                if stream.width * stream.height > max_pixels:
                    raise MediaError(
                        f"frames of {stream.width} × {stream.height} pixels are too large"
                    )
                origin = _origin(container)
                if begin > 0:
                    _seek(container, stream, begin + origin)
                shown = _shown(_frames(container, stream), at_s, origin)
                if shown is None or (begin > 0 and _time(shown, origin) > at_s + _ROUNDING_S):
                    continue
                time = _time(shown, origin)
                hold = max(_HOLD_S, float((shown.duration or 0) * (shown.time_base or 0)))
                if at_s > time + hold:
                    raise MediaError(f"no video at {at_s:g} s: its last frame is at {time:.3f} s")
                pixels = shown.to_ndarray(format="rgb24")
                return np.ascontiguousarray(np.rot90(pixels, round(shown.rotation / 90)))
        raise MediaError("no video frame can be decoded")

    @contextmanager
    def _open(self) -> Iterator[InputContainer]:
        self._file.seek(0)
        with av.open(
            self._file,
            "r",
            container_options={"format_whitelist": _FORMATS},
            io_open=_refuse,
            **_OPTIONS,
        ) as container:
            yield container


class ContainerAudio:
    """The first audio track of a container."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        # decoded, because a header may state half the true rate (HE-AAC)
        with closing(self._frames(0.0)) as frames:
            for _, rate, _ in frames:
                self.rate = rate
                return
        raise MediaError("has no audio")

    def read(self, begin: int, end: int | None) -> np.ndarray:
        """Mono float32 samples [begin, end) of the track's own rate, fewer where it ends.

        Gaps between packets are zeros.
        """
        samples = self._read(begin, end, begin / self.rate - _SEEK_MARGIN_S)
        if samples is None:  # the seek overshot: read from the start
            samples = self._read(begin, end, 0.0)
        return np.zeros(0, np.float32) if samples is None else samples

    def seconds(self) -> float:
        """Length of the track: counted, since few containers state it and some state it wrongly."""
        last = 0.0
        with closing(self._frames(0.0)) as frames:
            for time, rate, samples in frames:
                last = max(last, time + samples.shape[-1] / rate)
        return last

    def _read(self, begin: int, end: int | None, seek_s: float) -> np.ndarray | None:
        """`read` after a seek; None if the first packet there starts after `begin`."""
        parts: list[np.ndarray] = []
        at: int | None = None  # index of the next sample, counted on from the first
        with closing(self._frames(max(0.0, seek_s))) as frames:
            for time, rate, samples in frames:
                if rate != self.rate:
                    raise MediaError("its sample rate changes on the way")
                mono = samples.mean(axis=0)
                stamped = round(time * rate)
                if at is None:
                    if seek_s > 0 and stamped > begin:
                        return None
                    at = min(stamped, begin)
                    gap = stamped - at
                else:
                    gap = stamped - at if abs(stamped - at) > _TOLERANCE_S * rate else 0
                if gap > _LONGEST_GAP_S * rate:
                    raise MediaError(f"its time stamps jump by {gap / rate:.0f} s")
                if gap > 0:
                    parts.append(_within(np.zeros(gap, np.float32), at, begin, end))
                    at += gap
                elif gap < 0:
                    mono = mono[-gap:]
                parts.append(_within(mono, at, begin, end))
                at += len(mono)
                if end is not None and at >= end:
                    break
        return None if at is None else np.concatenate(parts)

    def _frames(self, seek_s: float) -> Generator[tuple[float, int, np.ndarray]]:
        """Decoded packets from at or before a time: (time, Hz, float32 (channels, samples))."""
        with self._streams._open() as container:
            if not container.streams.audio:
                raise MediaError("has no audio")
            stream = container.streams.audio[0]
            origin = _origin(container)
            if seek_s > 0:
                _seek(container, stream, seek_s + origin)
            planar = av.AudioResampler(format="fltp")
            expected = 0.0
            for frame in _frames(container, stream):
                time = expected if frame.pts is None else _time(frame, origin)
                expected = time + frame.samples / frame.sample_rate
                for converted in planar.resample(frame):
                    yield time, frame.sample_rate, converted.to_ndarray()


@contextmanager
def reading(file: BinaryIO) -> Iterator[Streams]:
    """The streams of an open container file; FFmpeg's errors become `MediaError`."""
    try:
        yield Streams(file)
    except av.InvalidDataError as error:
        raise MediaError("not audio or video that can be decoded") from error
    except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        detail = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise MediaError(f"cannot be decoded ({detail})") from error


def _frames(container: InputContainer, stream: Any) -> Iterator[Any]:
    """Decoded frames of a stream; packets that cannot be decoded are skipped."""
    bad = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            bad += 1
            if bad > _BAD_PACKETS:
                raise


def _shown(frames: Iterator[Any], at_s: float, origin: float) -> Any:
    """The last frame that begins at or before a time, else the first; None if there is none."""
    shown = None
    for frame in frames:
        later = _time(frame, origin) > at_s + _ROUNDING_S
        if shown is None or not later:
            shown = frame
        if later:
            break
    return shown


def _video_stream(container: InputContainer) -> Any:
    """The first video stream that is not the cover image of a song, or None."""
    for stream in container.streams.video:
        # damage may leave a stream without a codec
        if stream.codec_context and not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def _needed_video_stream(container: InputContainer) -> Any:
    stream = _video_stream(container)
    if stream is None:
        raise MediaError("has no video")
    return stream


def _seek(container: InputContainer, stream: Any, time: float) -> None:
    """Move to the last point at or before `time` from which the stream can be decoded."""
    try:
        container.seek(math.floor(time / stream.time_base), stream=stream, backward=True)
    except av.FFmpegError:
        container.seek(0)


def _origin(container: InputContainer) -> float:
    """The time that the container calls its start; MPEG streams seldom start at zero."""
    return 0.0 if container.start_time is None else container.start_time / av.time_base


def _time(frame: Any, origin: float) -> float:
    return 0.0 if frame.pts is None else float(frame.pts * frame.time_base) - origin


def _within(samples: np.ndarray, at: int, begin: int, end: int | None) -> np.ndarray:
    """The samples within [begin, end), where the first of them has index `at`."""
    stop = len(samples) if end is None else max(0, end - at)
    return samples[max(0, begin - at) : stop]


def _refuse(url: str, flags: int, options: dict) -> Any:
    raise PermissionError("media may not refer to other files")
