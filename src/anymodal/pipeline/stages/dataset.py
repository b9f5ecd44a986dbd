"""Stage `dataset`: read the source's clips and draw the three subsets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES
from anymodal.core.storage import read_json, write_parquet
from anymodal.data.audioset.shards import trace
from anymodal.data.clips import read_clips, write_clips
from anymodal.data.folder import scan_folder
from anymodal.data.info import DatasetInfo, SkippedFile
from anymodal.data.pack import read_pack
from anymodal.data.quality import empty_quality, measure, read_quality
from anymodal.data.subsets import ACCOUNT, draw_subsets
from anymodal.pipeline.context import Context
from anymodal.tracking.metrics import of_dataset

_REMEDIES = {
    "pack": "fetch the bundled pack with `dvc pull`",
    "folder": "set dataset.path in params.yaml to a folder of media",
    "audioset": "set dataset.path in params.yaml to a folder that `anymodal audioset` wrote, or "
    "fetch it with `dvc pull`",
}


_Source = tuple[str, pd.DataFrame, pd.DataFrame, pd.DataFrame, list[SkippedFile]]
"""The name of a source, all its clips, those drawn, the account, and files that were skipped."""


def dataset(context: Context) -> pd.DataFrame:
    """Run the stage; return the account of what was drawn (see `draw_subsets`)."""
    workspace, params = context.workspace, context.params
    root = source_root(context)
    read = _audioset if params.dataset.source == "audioset" else _drawn
    name, available, clips, account, skipped = read(context, root)
    for item in skipped:
        context.say(f"skipped {item.path}: {item.reason}")
    write_clips(workspace.clips, clips)
    write_parquet(workspace.quality, _quality(context, root, clips))
    drawn = account[account["taken"] > 0]
    drawn_classes = clips.loc[clips["subset"] == "classification", "instrument"].unique()
    info = DatasetInfo(
        name=name,
        source=params.dataset.source,
        pairing=clips["pairing"].iloc[0],
        classes=tuple(sorted(drawn_classes)),
        left_out=_excluded(available, clips),
        rows={modality: int(clips[modality].notna().sum()) for modality in MODALITIES},
        groups=int(clips["group"].nunique()),
        skipped=tuple(skipped),
        account=tuple({str(k): v for k, v in row.items()} for row in drawn.to_dict("records")),
    )
    info.write(workspace.dataset)
    with context.stage_run("dataset") as run:
        run.log_dataset(clips, context.dataset_ref, "all")
        run.log_metrics(of_dataset(info).metrics)
        run.log_table(account, "account")
        run.log_file(workspace.dataset)
    return account


def source_root(context: Context) -> Path:
    """Folder of the source; its absence is an `AnymodalError` with the remedy."""
    params = context.params.dataset
    root = context.workspace.root / params.path
    if not root.is_dir():
        raise AnymodalError(f"no data at {root}; {_REMEDIES[params.source]}")
    return root


def _drawn(context: Context, root: Path) -> _Source:
    """A pack or a folder of media, with its subsets drawn here."""
    params = context.params
    skipped: list[SkippedFile] = []
    if params.dataset.source == "pack":
        pack = read_pack(root)
        name, available = pack.info.name, pack.clips
    else:
        with context.progress("read media") as advance:
            available, skipped = scan_folder(root, params.dataset.windows, progress=advance)
        name = root.name
    clips, account = draw_subsets(available, params.dataset, params.seed)
    return name, available, clips, account, skipped


def _audioset(_context: Context, root: Path) -> _Source:
    """What `anymodal audioset` fetched: subsets and splits were drawn with the plan."""
    if not ((root / "clips.parquet").is_file() and (root / "audioset.json").is_file()):
        raise AnymodalError(
            f"{root} is not complete: finish it with `anymodal audioset`, which writes its "
            "clips.parquet last"
        )
    facts = read_json(root / "audioset.json")
    clips = read_clips(root / "clips.parquet")
    if clips.empty or clips["subset"].isna().any():
        raise AnymodalError(f"{root}/clips.parquet has no subsets; run `anymodal audioset` again")
    keys = ["instrument", "subset", "split"]
    # retrieval and translation are requested as a whole, not per class
    planned = pd.DataFrame(facts["fetch"]["account"]).dropna(subset="instrument")
    wanted = planned.set_index(keys)["wanted"].to_dict()
    counts = clips.fillna({"instrument": "other"}).groupby(keys, as_index=False).size()
    lines = [
        (name, "both", subset, split, wanted.get((name, subset, split)), taken, taken, "")
        for name, subset, split, taken in counts.itertuples(index=False)
    ]
    account = pd.DataFrame(lines, columns=list(ACCOUNT)).astype(
        {"wanted": object, "available": "int64", "taken": "int64"}
    )
    return str(facts["name"]), clips, clips, account, []


def _quality(context: Context, root: Path, clips: pd.DataFrame) -> pd.DataFrame:
    source = context.params.dataset.source
    if source == "pack":
        return empty_quality()
    known, tracer = None, None
    if source == "audioset":
        known, tracer = read_quality(root / "quality.parquet"), trace
    workers = context.params.embed.workers
    with context.progress("measure media") as advance:
        return measure(clips, root, known, tracer=tracer, workers=workers, progress=advance)


def _excluded(available: pd.DataFrame, clips: pd.DataFrame) -> dict[str, str]:
    """The classes that were not drawn, and why."""
    reasons = {}
    absent = set(available["instrument"].dropna()) - set(clips["instrument"].dropna())
    for instrument in sorted(absent):
        rows = available[available["instrument"] == instrument]
        present = [m for m in MODALITIES if rows[m].notna().any()]
        fewest = min(rows.loc[rows[modality].notna(), "group"].nunique() for modality in present)
        reasons[instrument] = (
            f"{present[0]} only" if len(present) == 1 else f"{fewest} groups in a modality, too few"
        )
    return reasons
