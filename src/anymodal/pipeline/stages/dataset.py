"""Stage `dataset`: read the source's clips and draw the three subsets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from anymodal.dataset.audioset.traces import trace
from anymodal.dataset.clips import read_clips, write_clips
from anymodal.dataset.folder import Skipped, scan_folder
from anymodal.dataset.pack import read_pack
from anymodal.dataset.quality import empty_quality, measure, read_quality
from anymodal.dataset.subsets import ACCOUNT, draw_subsets
from anymodal.encoders.base import MODALITIES
from anymodal.errors import AnymodalError
from anymodal.run_metrics import of_dataset
from anymodal.stages.base import Context, basis
from anymodal.storage import read_json, write_json, write_parquet
from anymodal.tracking import stage_run

_REMEDIES = {
    "pack": "fetch the bundled pack with `dvc pull`",
    "folder": "set dataset.path in params.yaml to a folder of media",
    "audioset": "set dataset.path in params.yaml to a folder that `anymodal audioset` wrote, or "
    "fetch it with `dvc pull`",
}


class _Source(NamedTuple):
    """What a source has: `clips` are those drawn, `found` all."""

    name: str
    found: pd.DataFrame
    clips: pd.DataFrame
    account: pd.DataFrame
    skipped: list[Skipped]


def dataset(context: Context) -> pd.DataFrame:
    """Run the stage; return the account of what was drawn (see `draw_subsets`).

    Of media, their levels, contrasts and sizes are written too (`dataset.quality`); the bundled
    pack has no media, and so no rows there.
    """
    workspace, params = context.workspace, context.params
    root = source_root(context)
    source = _audioset(root) if params.dataset.source == "audioset" else _drawn(context, root)
    name, found, clips, account, skipped = source
    for item in skipped:
        context.say(f"skipped {item.path}: {item.reason}")
    write_clips(workspace.clips, clips)
    write_parquet(workspace.quality, _quality(context, root, clips))
    drawn = account[account["taken"] > 0]
    rows = {modality: int(clips[modality].notna().sum()) for modality in MODALITIES}
    write_json(
        workspace.dataset,
        {
            "name": name,
            "source": params.dataset.source,
            "pairing": clips["pairing"].iloc[0],
            "classes": sorted(
                clips.loc[clips["subset"] == "classification", "instrument"].unique()
            ),
            "left_out": _left_out(found, clips),
            "rows": rows,
            "groups": int(clips["group"].nunique()),
            "skipped": [{"path": item.path, "reason": item.reason} for item in skipped],
            "account": drawn.to_dict("records"),
        },
    )
    rests_on = basis(workspace)
    with stage_run("dataset", params, rests_on) as run:
        run.log_dataset(clips, rests_on, "all")
        run.log_metrics(of_dataset({"rows": rows}).metrics)
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
    skipped: list[Skipped] = []
    if params.dataset.source == "pack":
        pack = read_pack(root)
        name, found = pack.name, pack.clips
    else:
        with context.progress("read media") as advance:
            found, skipped = scan_folder(root, params.dataset.windows, progress=advance)
        name = root.name
    clips, account = draw_subsets(found, params.dataset, params.seed)
    return _Source(name, found, clips, account, skipped)


def _audioset(root: Path) -> _Source:
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
    told = pd.DataFrame(facts["fetch"]["account"])
    told = told[told["instrument"].notna()]
    wanted = told.set_index(["instrument", "subset", "split"])["wanted"].to_dict()
    # retrieval and translation are asked for as a whole, whatever the class
    keys = ["instrument", "subset", "split"]
    counts = clips.fillna({"instrument": "other"}).groupby(keys, as_index=False).size()
    lines = [
        (name, "both", subset, split, wanted.get((name, subset, split)), taken, taken, "")
        for name, subset, split, taken in counts.itertuples(index=False)
    ]
    account = pd.DataFrame(lines, columns=list(ACCOUNT)).astype(
        {"wanted": object, "available": "int64", "taken": "int64"}
    )
    return _Source(str(facts["name"]), clips, clips, account, [])


def _quality(context: Context, root: Path, clips: pd.DataFrame) -> pd.DataFrame:
    source = context.params.dataset.source
    if source == "pack":
        return empty_quality()
    fetched = source == "audioset"
    with context.progress("look at the media") as advance:
        return measure(
            clips,
            root,
            read_quality(root / "quality.parquet") if fetched else None,
            tracer=trace if fetched else None,
            workers=context.params.embed.workers,
            progress=advance,
        )


def _left_out(found: pd.DataFrame, clips: pd.DataFrame) -> dict[str, str]:
    reasons = {}
    for instrument in sorted(set(found["instrument"].dropna()) - set(clips["instrument"].dropna())):
        rows = found[found["instrument"] == instrument]
        there = [modality for modality in MODALITIES if rows[modality].notna().any()]
        fewest = min(rows.loc[rows[modality].notna(), "group"].nunique() for modality in there)
        reasons[instrument] = (
            f"{there[0]} only" if len(there) == 1 else f"{fewest} groups in a modality, too few"
        )
    return reasons
