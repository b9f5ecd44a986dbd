"""Stage `dataset`: read the source's clips and draw the three subsets."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from anymodal.dataset.clips import write_clips
from anymodal.dataset.folder import Skipped, scan_folder
from anymodal.dataset.pack import read_pack
from anymodal.dataset.subsets import draw_subsets
from anymodal.encoders.base import MODALITIES
from anymodal.errors import AnymodalError
from anymodal.stages.base import Context
from anymodal.storage import write_json
from anymodal.tracking import Basis, stage_run


def dataset(context: Context) -> pd.DataFrame:
    """Run the stage; return the account of what was drawn (see `draw_subsets`)."""
    workspace, params = context.workspace, context.params
    root = source_root(context)
    skipped: list[Skipped] = []
    if params.dataset.source == "pack":
        pack = read_pack(root)
        name, found = pack.name, pack.clips
    else:
        with context.progress("read media") as advance:
            found, skipped = scan_folder(root, params.dataset.windows, progress=advance)
        name = root.name
    for item in skipped:
        context.say(f"skipped {item.path}: {item.reason}")
    clips, account = draw_subsets(found, params.dataset, params.seed)
    write_clips(workspace.clips, clips)
    drawn = account[account["taken"] > 0]
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
            "rows": {modality: int(clips[modality].notna().sum()) for modality in MODALITIES},
            "groups": int(clips["group"].nunique()),
            "skipped": [{"path": item.path, "reason": item.reason} for item in skipped],
            "account": drawn.to_dict("records"),
        },
    )
    with stage_run(
        "dataset", params, Basis(name, clips["pairing"].iloc[0], workspace.clips)
    ) as run:
        run.log_dataset(clips, Basis(name, clips["pairing"].iloc[0], workspace.clips), "all")
        for modality in MODALITIES:
            run.log_metrics({f"rows/{modality}": int(clips[modality].notna().sum())})
        run.log_table(account, "account")
        run.log_file(workspace.dataset)
    return account


def source_root(context: Context) -> Path:
    """Folder of the source; its absence is an `AnymodalError` with the remedy."""
    params = context.params.dataset
    root = context.workspace.root / params.path
    if not root.is_dir():
        remedy = (
            "fetch the bundled pack with `dvc pull`"
            if params.source == "pack"
            else "set dataset.path in params.yaml to a folder of media"
        )
        raise AnymodalError(f"no data at {root}; {remedy}")
    return root


def _left_out(found: pd.DataFrame, clips: pd.DataFrame) -> dict[str, str]:
    reasons = {}
    for instrument in sorted(set(found["instrument"].dropna()) - set(clips["instrument"].dropna())):
        rows = found[found["instrument"] == instrument]
        there = [modality for modality in MODALITIES if rows[modality].notna().any()]
        reasons[instrument] = f"{' and '.join(there)} only" if len(there) == 1 else "too few rows"
    return reasons
