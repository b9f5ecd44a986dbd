"""Division of a clip table into the paper's three disjoint subsets and their splits.

Translation trains the projection (train, valid), retrieval chooses the encoders (test),
classification trains and tests the classifiers (train, valid, test); paper, section 3.1 and
table 2.

Terms
-----
Stratum   one class in one modality (`class` pairing), or one class (`clip` pairing, where every
          row has both; rows without a class are a stratum that classification does not use).
Group     rows that must not be split. It belongs to the rarest of its strata, and all of its rows
          go where it goes.

Rules
-----
1. `class` pairing uses the classes that both modalities have; other rows are left out, and so
   are classes of fewer than `min_groups` groups in a modality.
2. Every stratum has at least one group in each of the six splits, hence six at least.
3. Groups stand in a random order that spreads their sources evenly.
4. Classification comes first: it may have what the shares of translation and retrieval leave of a
   stratum's groups (all but their minimum, where `per_class` and numbers of clips are given). It
   is cut to the same number of rows for every class of a modality in each split: `per_class`, or
   what the poorest class has (a class with few sounds costs no pictures). Cutting keeps as many
   groups as it can and drops further windows of a recording first. A stratum that holds the
   others back has its largest groups dealt to classification instead of random ones.
5. Groups that the balance leaves without a row go back. Retrieval takes its share of the groups of
   every stratum, translation all the rest; a number of clips (1 or more) is drawn from all strata
   in proportion, and the rest is not used.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from anymodal.dataset.clips import validate
from anymodal.dataset.division import PARTS, Division
from anymodal.errors import AnymodalError
from anymodal.params import DatasetParams

ACCOUNT = ("instrument", "modality", "subset", "split", "wanted", "available", "taken", "note")
_BALANCE = "cut to balance the classes"
_BEYOND = "beyond the number of clips wanted"


def draw_subsets(
    clips: pd.DataFrame, params: DatasetParams, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clips with `subset` and `split` filled (rows not used dropped), and the account.

    The result depends on the set of rows and the seed, not on the order of the rows; it is
    ordered by medium and `start_s`. What `clips` says of subset and split is ignored.

    The account has the columns `ACCOUNT`: for every stratum and split the rows wanted, available
    in the stratum, and taken; then one line for each reason (`note`) why rows are unused (`subset`
    is `unused`). Over a stratum `taken` sums to `available`. `modality` is audio, image or both.

    Raises `AnymodalError` naming class, wanted and available where data are too few.
    """
    clips = validate(clips.assign(subset=None, split=None))
    if clips.empty:
        raise AnymodalError("the clip table is empty; there is nothing to divide")
    clips = clips.sort_values("clip_id", ignore_index=True)
    modality, note = _eligible(clips, params.min_groups)
    used = (note == "").to_numpy()
    table = clips[used]
    keys = pd.DataFrame({"instrument": table["instrument"].fillna(""), "modality": modality[used]})
    by_stratum = keys.groupby(["instrument", "modality"], sort=True)
    names = [(str(name), str(kind)) for name, kind in keys.drop_duplicates().to_numpy()]
    names.sort()
    _refuse_single({name for name, _ in names if name}, note)
    group, _ = pd.factorize(table["group"], sort=True)
    source = pd.factorize(table.groupby(group, sort=True)["source"].min(), sort=True)[0]
    division = Division(
        stratum=by_stratum.ngroup().to_numpy(),
        group=group,
        turn=_turns(table, group),
        source=source,
        names=[_tell(*name) for name in names],
        modality=np.array([kind for _, kind in names]),
        classified=np.array([bool(name) for name, _ in names]),
        params=params,
        rng=np.random.default_rng(seed),
    )
    division.run()
    parts = np.full(len(clips), -1)
    parts[used] = division.row_part
    cut = np.isin(division.part[group], range(3))
    note[used] = np.where(division.row_part >= 0, "", np.where(cut, _BALANCE, _BEYOND))
    subsets = np.array([subset for subset, _ in PARTS] + [None], dtype=object)
    splits = np.array([split for _, split in PARTS] + [None], dtype=object)
    clips = clips.assign(subset=subsets[parts], split=splits[parts])
    account = _account(clips, modality, note, dict(zip(names, division.wanted, strict=True)))
    taken = clips[parts >= 0]
    columns = ["audio", "image", "start_s", "clip_id"]
    return taken.sort_values(columns, na_position="last", ignore_index=True), account


def _eligible(clips: pd.DataFrame, min_groups: int) -> tuple[pd.Series, pd.Series]:
    """Modality of every row, and why it cannot be used ("" where it can)."""
    audio, image = clips["audio"].notna(), clips["image"].notna()
    modality = pd.Series(np.where(audio & image, "both", np.where(audio, "audio", "image")))
    note = pd.Series("", index=clips.index, dtype=object)
    if clips["pairing"].iloc[0] == "clip":
        note[~image] = "has no image to its audio"
        note[~audio] = "has no audio to its image"
        _leave_out_rare(clips, modality, note, min_groups)
        return modality, note
    if (modality == "both").any():
        first = clips.loc[modality == "both", "clip_id"].iloc[0]
        raise AnymodalError(
            f"clip {first!r} has audio and image, but is paired by class; make two rows of it, "
            "or pair by clip"
        )
    heard, seen = (set(clips.loc[each, "instrument"].dropna()) for each in (audio, image))
    note[~clips["instrument"].isin(seen)] = "its class has no images"
    note[~clips["instrument"].isin(heard)] = "its class has no audio"
    note[clips["instrument"].isna()] = "has no class"
    _leave_out_rare(clips, modality, note, min_groups)
    return modality, note


def _leave_out_rare(
    clips: pd.DataFrame, modality: pd.Series, note: pd.Series, min_groups: int
) -> None:
    used = clips[note == ""].assign(modality=modality).dropna(subset=["instrument"])
    groups = used.groupby(["instrument", "modality"])["group"].nunique()
    fewest = groups.groupby("instrument").min()
    for name, count in fewest[fewest < min_groups].items():
        # dataset.min_groups, told in full because the account shows it
        why = f"its class has {count} group(s) in a modality, fewer than min_groups ({min_groups})"
        note[(clips["instrument"] == name) & (note == "")] = why


def _refuse_single(classes: set[str], note: pd.Series) -> None:
    if len(classes) < 2:
        reasons = note[note != ""].value_counts()
        told = f": {reasons.iloc[0]} row(s) left out ({reasons.index[0]})" if len(reasons) else ""
        raise AnymodalError(
            f"only {len(classes)} class(es) can be used, and classifying needs two{told}"
        )


def _turns(table: pd.DataFrame, group: np.ndarray) -> np.ndarray:
    """Place of every row within its group: first windows of its recordings before second ones."""
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
    table = pd.DataFrame(
        {
            "instrument": clips["instrument"].fillna(""),
            "modality": modality,
            "subset": clips["subset"].fillna("unused"),
            "split": clips["split"].fillna(""),
            "note": note,
        }
    )
    lines: list[tuple] = []
    for stratum, rows in table.groupby(["instrument", "modality"], sort=True):
        name, kind = map(str, stratum) if isinstance(stratum, tuple) else ("", "")
        head, available = (name or None, kind), len(rows)
        taken = rows.groupby(["subset", "split"]).size().to_dict()
        for (subset, split), goal in zip(PARTS, wanted.get((name, kind), ()), strict=False):
            lines.append((*head, subset, split, goal, available, taken.get((subset, split), 0), ""))
        unused = rows.loc[rows["subset"] == "unused", "note"].value_counts().sort_index()
        for why, count in unused.items():
            lines.append((*head, "unused", "", np.nan, available, count, why))
    account = pd.DataFrame(lines, columns=list(ACCOUNT))
    return account.astype({"wanted": "Int64", "available": "int64", "taken": "int64"})


def _tell(name: str, modality: str) -> str:
    where = "" if modality == "both" else f" ({modality})"
    return f"class {name!r}{where}" if name else f"rows without a class{where}"
