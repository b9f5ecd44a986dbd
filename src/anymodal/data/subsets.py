"""Division of a clip table into the paper's three disjoint subsets and their splits.

Translation trains the projection, retrieval chooses the encoders, classification trains and tests
the classifiers (paper, section 3.1, table 2).

A stratum is one class in one modality (`class` pairing) or one class (`clip` pairing; rows without
a class are a stratum that classification does not use). A group belongs to the rarest of its
strata, and all of its rows go where it goes.

1. `class` pairing uses the classes that both modalities have, with at least `min_groups` groups in
   each.
2. Every stratum has at least one group in each of the six splits, hence six at least.
3. Groups stand in a random order that spreads their sources evenly.
4. Classification comes first, with what the shares of translation and retrieval leave of a
   stratum's groups (all but their minimum, where `per_class` and numbers of clips are given). It
   is cut to the same number of rows for every class of a modality in each split: `per_class`, or
   what the poorest class has. Cutting drops further windows of a recording first. A stratum that
   holds the others back gives its largest groups instead of random ones.
5. Groups without a row after cutting go back. Retrieval takes its share of the groups of every
   stratum, translation the rest; a number of clips (1 or more) is drawn in proportion.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from anymodal.config.params import DatasetParams
from anymodal.core.errors import AnymodalError
from anymodal.data.clips import validate
from anymodal.data.division import PARTS, Division

ACCOUNT = ("instrument", "modality", "subset", "split", "wanted", "available", "taken", "note")
_BALANCE = "cut to balance the classes"
_BEYOND = "beyond the number of clips wanted"


def draw_subsets(
    clips: pd.DataFrame, params: DatasetParams, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the clips with `subset` and `split` filled, unused rows dropped, and the account.

    The result is ordered by file and `start_s`, and does not depend on the order of `clips`.

    The account has the columns `ACCOUNT`: for every stratum and split the rows wanted, available
    in the stratum, and taken; then one line for each reason (`note`) why rows are unused (`subset`
    is `unused`). Raises `AnymodalError` where data are too few.
    """
    clips = validate(clips.assign(subset=None, split=None))
    if clips.empty:
        raise AnymodalError("the clip table is empty; there is nothing to divide")
    clips = clips.sort_values("clip_id", ignore_index=True)
    modality, note = _eligible(clips, params.min_groups)
    used = (note == "").to_numpy()
    table = clips[used]
    keys = pd.DataFrame({"instrument": table["instrument"].fillna(""), "modality": modality[used]})
    strata = sorted((str(name), str(kind)) for name, kind in keys.drop_duplicates().to_numpy())
    if (count := len({name for name, _ in strata if name})) < 2:
        reasons = note[note != ""].value_counts()
        why = f": {reasons.iloc[0]} row(s) unused ({reasons.index[0]})" if len(reasons) else ""
        raise AnymodalError(f"only {count} class(es) can be used, and classifying needs two{why}")
    group, _ = pd.factorize(table["group"], sort=True)
    division = Division(
        stratum=keys.groupby(["instrument", "modality"], sort=True).ngroup().to_numpy(),
        group=group,
        rank_in_group=_ranks_in_group(table, group),
        source=pd.factorize(table.groupby(group, sort=True)["source"].min(), sort=True)[0],
        strata=strata,
        params=params,
        rng=np.random.default_rng(seed),
    )
    division.run()
    parts = np.full(len(clips), -1)
    parts[used] = division.row_part
    cut = np.isin(division.part[group], range(3))
    note[used] = np.where(division.row_part >= 0, "", np.where(cut, _BALANCE, _BEYOND))
    subsets, splits = np.array([*PARTS, (None, None)], dtype=object).T
    clips = clips.assign(subset=subsets[parts], split=splits[parts])
    account = _account(clips, modality, note, dict(zip(strata, division.wanted, strict=True)))
    columns = ["audio", "image", "start_s", "clip_id"]
    taken = clips[parts >= 0].sort_values(columns, na_position="last", ignore_index=True)
    return taken, account


def _eligible(clips: pd.DataFrame, min_groups: int) -> tuple[pd.Series, pd.Series]:
    """Modality of every row, and why it cannot be used ("" where it can)."""
    audio, image = clips["audio"].notna(), clips["image"].notna()
    modality = pd.Series(np.where(audio & image, "both", np.where(audio, "audio", "image")))
    note = pd.Series("", index=clips.index, dtype=object)
    if clips["pairing"].iloc[0] == "clip":
        note[~image] = "has no image to its audio"
        note[~audio] = "has no audio to its image"
    else:
        if (audio & image).any():
            raise AnymodalError(
                f"clip {clips.loc[audio & image, 'clip_id'].iloc[0]!r} has audio and image, but is "
                "paired by class; make two rows of it, or pair by clip"
            )
        note[~clips["instrument"].isin(clips.loc[image, "instrument"])] = "its class has no images"
        note[~clips["instrument"].isin(clips.loc[audio, "instrument"])] = "its class has no audio"
        note[clips["instrument"].isna()] = "has no class"
    usable = clips[note == ""].assign(modality=modality)
    groups = usable.groupby(["instrument", "modality"])["group"].nunique()
    fewest = groups.groupby("instrument").min()
    for name, count in fewest[fewest < min_groups].items():
        why = f"its class has {count} group(s) in a modality, fewer than min_groups ({min_groups})"
        note[(clips["instrument"] == name) & (note == "")] = why
    return modality, note


def _ranks_in_group(table: pd.DataFrame, group: np.ndarray) -> np.ndarray:
    """Rank of every row within its group: first windows of its recordings before second ones."""
    files = pd.factorize(table["audio"].fillna("") + "\0" + table["image"].fillna(""))[0]
    rows = pd.DataFrame({"group": group, "file": files, "start": table["start_s"].to_numpy()})
    by_start = rows.sort_values(["group", "file", "start"], kind="stable")
    rows["window"] = by_start.groupby(["group", "file"]).cumcount()
    by_window = rows.sort_values(["group", "window", "file"], kind="stable")
    return by_window.groupby("group").cumcount().sort_index().to_numpy()


def _account(
    clips: pd.DataFrame,
    modality: pd.Series,
    note: pd.Series,
    wanted: dict[tuple[str, str], np.ndarray],
) -> pd.DataFrame:
    table = clips.assign(
        instrument=clips["instrument"].fillna(""),
        modality=modality,
        subset=clips["subset"].fillna("unused"),
        note=note,
    )
    lines: list[tuple] = []
    for (name, kind), rows in table.groupby(["instrument", "modality"], sort=True):
        stratum, available = (str(name), str(kind)), len(rows)
        head = (stratum[0] or None, stratum[1])
        taken = rows.groupby(["subset", "split"]).size().to_dict()
        for part, goal in zip(PARTS, wanted.get(stratum, ()), strict=False):
            lines.append((*head, *part, goal, available, taken.get(part, 0), ""))
        unused = rows.loc[rows["subset"] == "unused", "note"].value_counts().sort_index()
        for why, count in unused.items():
            lines.append((*head, "unused", "", np.nan, available, count, why))
    account = pd.DataFrame(lines, columns=list(ACCOUNT))
    return account.astype({"wanted": "Int64", "available": "int64", "taken": "int64"})
