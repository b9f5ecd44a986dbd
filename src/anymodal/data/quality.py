"""Level, contrast and size of every clip's media, for the limits of `anymodal.data.checks`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import write_parquet
from anymodal.media import decoding, levels

_RATE = 48_000
_BLOCK = 4096  # clips between two saves

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        # of the window's audio, dB of full scale
        pa.field("rms_dbfs", pa.float64()),
        pa.field("peak_dbfs", pa.float64()),
        # of the image: see `levels.contrast`; pixels
        pa.field("contrast", pa.float64()),
        pa.field("short_side", pa.float64()),
        pa.field("unreadable", pa.string()),
        # see `Trace`
        pa.field("video_id", pa.string()),
        pa.field("offset_s", pa.float64()),
        pa.field("damage", pa.string()),
    ]
)
COLUMNS = tuple(SCHEMA.names)


class Trace(NamedTuple):
    """Where a clip's audio and image were cut from, as its shard says."""

    video_id: str | None = None
    offset_s: float | None = None
    """Time of the frame after the start of the audio, in seconds."""
    damage: str | None = None
    """Why the shard cannot be trusted: files that are not those once fetched."""


Tracer = Callable[[str, str | None, str | None], Trace]
"""Takes clip_id, audio and image (paths)."""


def empty_quality() -> pd.DataFrame:
    """Return a table without rows, for sources without media."""
    return SCHEMA.empty_table().to_pandas()


def read_quality(path: str | Path) -> pd.DataFrame:
    """Read a table that `measure` saved; where there is none, an empty one."""
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
    """Measure the media of `clips` (paths relative to `root`); columns `COLUMNS`, one row per clip.

    known: rows of an earlier call, which are reused. save: a file that is updated after every few
    thousand clips, so that a killed run resumes. Media that cannot be read are noted, not raised.
    """
    root = Path(root)
    table = empty_quality() if known is None else known
    table = table[table["clip_id"].isin(clips["clip_id"])]
    new = clips[~clips["clip_id"].isin(table["clip_id"])]
    done = len(clips) - len(new)
    with ThreadPoolExecutor(workers, thread_name_prefix="measure") as pool:
        for start in range(0, len(new), _BLOCK):
            block = new[["clip_id", "audio", "image", "start_s"]].iloc[start : start + _BLOCK]
            rows = []
            for row in pool.map(lambda clip: _row(root, tracer, *clip), block.to_numpy(object)):
                rows.append(row)
                done += 1
                if progress:
                    progress(done, len(clips))
            old = pa.Table.from_pandas(table, schema=SCHEMA, preserve_index=False)
            added = pa.Table.from_pylist(rows, schema=SCHEMA)
            table = pa.concat_tables([old, added]).to_pandas()
            if save:
                write_parquet(save, table)
    order = pd.Index(table["clip_id"]).get_indexer(pd.Index(clips["clip_id"]))
    table = table.iloc[order].reset_index(drop=True)
    if save:
        write_parquet(save, table)
    return table


def _row(
    root: Path, tracer: Tracer | None, clip_id: str, audio: object, image: object, start_s: float
) -> dict[str, object]:
    audio, image = (str(root / path) if isinstance(path, str) else None for path in (audio, image))
    row: dict[str, object] = {"clip_id": clip_id}
    try:
        if audio is not None:
            samples = decoding.load_audio(audio, _RATE, start_s)
            row |= {"rms_dbfs": levels.rms_dbfs(samples), "peak_dbfs": levels.peak_dbfs(samples)}
        if image is not None:
            is_video = decoding.sniff(image) == "video"
            pixels = decoding.load_frame(image, start_s) if is_video else decoding.load_image(image)
            row |= {"contrast": levels.contrast(pixels), "short_side": min(pixels.shape[:2])}
    except AnymodalError as error:
        row["unreadable"] = " ".join(str(error).split())
    if tracer is not None:
        row |= tracer(clip_id, audio, image)._asdict()
    return row
