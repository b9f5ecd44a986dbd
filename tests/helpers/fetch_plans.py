"""Plans for the tests of fetching, and parameters that lose no time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from anymodal.config.params import AudioSetParams
from anymodal.core.errors import AnymodalError
from anymodal.data.audioset.ffmpeg import find_ffmpeg
from anymodal.data.audioset.plan import COLUMNS, validate_plan
from anymodal.ontology import instruments
from helpers.videos import HAMMER, steps, timed_video


def require_ffmpeg() -> str:
    """Path of ffmpeg, or skip."""
    try:
        return find_ffmpeg()
    except AnymodalError as error:
        pytest.skip(str(error))


def require_ytdlp() -> None:
    """Skip without yt-dlp."""
    pytest.importorskip("yt_dlp", reason="yt-dlp is not installed (extra audioset)")


def quick(**more) -> AudioSetParams:
    """Parameters with short pauses."""
    limits = {"parallel": 4, "tries": 2, "give_up": 4, "timeout_s": 10, "stall_s": 2, "outage": 50}
    pauses = {"backoff_s": 0.02, "throttle_s": 0.05, "backoff_max_s": 1.0}
    return AudioSetParams(**(limits | pauses | more))


def make_plan(*pools, window_s: float = 2.2, frame_s: float = 2.6) -> pd.DataFrame:
    """A valid plan of (subset, instrument, {split: wanted ids}, reserve ids) a pool."""
    rows = []
    for subset, instrument, wanted, reserve in pools:
        labels = [HAMMER] if instrument is None else [instruments.mid(instrument)]
        places = [(name, split) for split, names in wanted.items() for name in names]
        for role, members in (("wanted", places), ("reserve", [(each, None) for each in reserve])):
            rows += [
                (name, 0.0, 10.0, labels, instrument, subset, split, role, rank, window_s, frame_s)
                for rank, (name, split) in enumerate(members)
            ]
    return validate_plan(pd.DataFrame(rows, columns=list(COLUMNS)))


def different_videos(folder, count: int, seconds: float = 3.4) -> list[bytes]:
    """Videos that differ in colour and pitch."""
    videos = []
    for number in range(count):
        samples = steps(seconds, 16_000, base=300 + 7 * number)
        look = {"size": (32, 24), "blue": 8 * number % 256, "options": {"movflags": "faststart"}}
        path = folder / f"different-{number}.mp4"
        timed_video(path, seconds, samples=samples, sample_rate=16_000, **look)
        videos.append(path.read_bytes())
    return videos


def table_without_places(clips: pd.DataFrame) -> pd.DataFrame:
    """A clip table by id, without which shard a clip lies in."""
    table = clips.sort_values("clip_id", ignore_index=True)
    table["labels"] = [tuple(each) for each in table["labels"]]
    for column in ("audio", "image"):
        table[column] = [str(each).partition("!")[2] for each in table[column]]
    return table.replace({np.nan: None})
