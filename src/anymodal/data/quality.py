"""What can be told of a medium without knowing what it shows: silence, blankness, size.

A file can be whole and still teach nothing: a muted recording, a black frame, a thumbnail. Each
clip is looked at once, when the media are at hand; `anymodal.checks` judges the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from anymodal import media
from anymodal.errors import AnymodalError
from anymodal.storage import write_parquet

SILENT_DBFS = -200.0
"""Told for a sound of nothing but zeros, whose level is −∞."""
_RATE = 48_000
_WINDOW_S = 1.0
_BLOCK = 4096
"""Clips between two saves."""

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        # sound of the clip's second, dB below full scale
        pa.field("rms_dbfs", pa.float64()),
        pa.field("peak_dbfs", pa.float64()),
        # standard deviation of the picture's brightness (0 to 255), and its shorter side in pixels
        pa.field("contrast", pa.float64()),
        pa.field("short_side", pa.float64()),
        pa.field("unreadable", pa.string()),
        # what is noted beside the media themselves, where something is: see `Trace`
        pa.field("video_id", pa.string()),
        pa.field("offset_s", pa.float64()),
        pa.field("damage", pa.string()),
    ]
)
COLUMNS = tuple(SCHEMA.names)


class Trace(NamedTuple):
    """Where a clip's sound and picture were taken from, as its shard says."""

    video_id: str | None = None
    offset_s: float | None = None
    """Time of the frame after the start of the sound, in seconds."""
    damage: str | None = None
    """Why the shard's word cannot be taken: files that are not those once fetched."""


class _Clip(NamedTuple):
    clip_id: str
    audio: str | None
    image: str | None
    start_s: float


Tracer = Callable[[str, str | None, str | None], Trace]
"""Takes clip_id, audio and image (paths)."""


def empty_quality() -> pd.DataFrame:
    """The table of clips nobody looked at."""
    return SCHEMA.empty_table().to_pandas()


def read_quality(path: str | Path) -> pd.DataFrame:
    """Read a table that `measure` gave; one that is not there is empty."""
    path = Path(path)
    if not path.is_file():
        return empty_quality()
    try:
        return pd.read_parquet(path)[list(COLUMNS)]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise AnymodalError(f"{path} is damaged ({error}); remove it and run again") from error


def measure(
    clips: pd.DataFrame,
    root: str | Path,
    known: pd.DataFrame | None = None,
    *,
    tracer: Tracer | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    save: Path | None = None,
) -> pd.DataFrame:
    """Look at the media of `clips` (paths relative to `root`); columns `COLUMNS`, a row a clip.

    known: rows of an earlier call, taken as they are: a clip id stands for its content. save: a
    file that is brought up to date after every few thousand clips, so that a killed run goes on.
    A medium that cannot be read is noted in `unreadable`, never raised.
    """
    root = Path(root)
    table = empty_quality() if known is None else known
    table = table[table["clip_id"].isin(clips["clip_id"])]
    new = clips[~clips["clip_id"].isin(table["clip_id"])]
    done, total = len(clips) - len(new), len(clips)
    upcoming = _clips(new, root)
    with ThreadPoolExecutor(workers, thread_name_prefix="look") as pool:
        while block := list(islice(upcoming, _BLOCK)):
            rows = []
            for row in pool.map(lambda clip: _look(clip, tracer), block):
                rows.append(row)
                done += 1
                if progress:
                    progress(done, total)
            table = _joined(table, rows)
            if save:
                write_parquet(save, table)
    order = pd.Index(table["clip_id"]).get_indexer(pd.Index(clips["clip_id"]))
    table = table.iloc[order].reset_index(drop=True)
    if save:
        write_parquet(save, table)
    return table


def _joined(table: pd.DataFrame, rows: list[dict[str, object]]) -> pd.DataFrame:
    new = pa.Table.from_pylist(rows, schema=SCHEMA)
    old = pa.Table.from_pandas(table, schema=SCHEMA, preserve_index=False)
    return pa.concat_tables([old, new]).to_pandas()


def _clips(clips: pd.DataFrame, root: Path) -> Iterator[_Clip]:
    columns = (clips[name] for name in ("clip_id", "audio", "image", "start_s"))
    for clip_id, audio, image, start in zip(*columns, strict=True):
        paths = [None if pd.isna(each) else str(root / each) for each in (audio, image)]
        yield _Clip(str(clip_id), paths[0], paths[1], float(start))


def _look(clip: _Clip, tracer: Tracer | None) -> dict[str, object]:
    row: dict[str, object] = {"clip_id": clip.clip_id}
    try:
        if clip.audio is not None:
            row |= loudness(media.load_audio(clip.audio, _RATE, clip.start_s, _WINDOW_S))
        if clip.image is not None:
            row |= appearance(_picture(clip.image, clip.start_s))
    except AnymodalError as error:
        row["unreadable"] = " ".join(str(error).split())
    if tracer is not None:
        row |= tracer(clip.clip_id, clip.audio, clip.image)._asdict()
    return row


def _picture(path: str, start_s: float) -> np.ndarray:
    if media.sniff(path) == "video":
        return media.load_frame(path, start_s)
    return media.load_image(path)


def loudness(sound: np.ndarray) -> dict[str, object]:
    """Level of a sound, float (samples,), in dB below full scale (a square wave has 0)."""
    if not len(sound):
        return {"rms_dbfs": SILENT_DBFS, "peak_dbfs": SILENT_DBFS}
    wide = sound.astype(np.float64)
    return {
        "rms_dbfs": _decibels(float(np.sqrt(np.mean(wide**2)))),
        "peak_dbfs": _decibels(float(np.abs(wide).max())),
    }


def appearance(pixels: np.ndarray) -> dict[str, object]:
    """Contrast and size of a picture, uint8 (height, width, 3)."""
    # weights of ITU-R BT.601, as in JPEG
    brightness = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return {"contrast": float(brightness.std()), "short_side": float(min(pixels.shape[:2]))}


def _decibels(amplitude: float) -> float:
    return max(SILENT_DBFS, float(20 * np.log10(amplitude))) if amplitude else SILENT_DBFS
