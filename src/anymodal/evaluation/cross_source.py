"""Protocols of cross-validation: tested within sources, and across sources.

Recordings of one collection share players, rooms and microphones. All splits of the classification
subset are pooled; every protocol tests the same rows, and no model saw a row's fold:

within        recordings are assigned to even folds at random, class by class; the translation
              trains on all its rows, which share no recording with the classification subset
cross_source  whole sources are assigned to folds; translation, PCA and forests are trained
              without any row of the fold's sources
size_matched  as many rows of each class and subset are held out as by `cross_source`, but
              recordings at random: what is lost to fewer rows, not to other sources

Only rows that have the target modality are held out. Rows of a class that has nothing left to train
on outside its fold, in any protocol, are dropped from all of them and listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd

from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Record
from anymodal.evaluation.classification import evaluate
from anymodal.evaluation.folds import assign_groups, assign_sources, untrainable
from anymodal.evaluation.forests import ForestSettings, LabelledFeatures

Protocol = Literal["within", "size_matched", "cross_source"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


class LeftOut(Record):
    """Rows of one class that no protocol tests."""

    instrument: str
    rows: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """Which fold tests which row of one target modality, under each protocol."""

    target: Modality
    clips: pd.DataFrame
    """Those of the classification and the translation subset."""
    fold: dict[Protocol, np.ndarray]
    """Of each measured protocol, the fold that holds each clip out, intp (clips,); −1: none."""
    tested: np.ndarray
    """bool (clips,)."""
    left_out: tuple[LeftOut, ...]
    missing: dict[Protocol, str]
    """Why a protocol is not measured."""

    @property
    def classes(self) -> list[str]:
        """Classes that have tested rows, by name."""
        return sorted(self.clips.loc[self.tested, "instrument"].unique())

    def folds(self, protocol: Protocol) -> list[int]:
        """Folds that test something."""
        return sorted({int(fold) for fold in self.fold[protocol][self.tested]})

    def held_out(self, protocol: Protocol, fold: int) -> set[str]:
        """Ids of the clips that no model of the fold may see."""
        return set(self.clips.loc[self.fold[protocol] == fold, "clip_id"])

    def tested_ids(self, protocol: Protocol, fold: int) -> set[str]:
        """Ids of the clips that the fold tests."""
        return set(self.clips.loc[self.tested & (self.fold[protocol] == fold), "clip_id"])


def plan(clips: pd.DataFrame, target: Modality, folds: int, seed: int, refused: str = "") -> Plan:
    """Assign the rows of one target modality to folds under every protocol.

    `clips` is a clip table with its subsets, without what could not be embedded. At most `folds`
    folds: no more than there are sources. `refused` is a reason not to measure across sources.
    """
    clips = clips[clips["subset"].isin(("classification", "translation"))].reset_index(drop=True)
    rows = _Rows(clips, target)
    fold: dict[Protocol, np.ndarray] = {
        "within": rows.assign_evenly(folds, np.random.default_rng([seed, 0]))
    }
    sources = sorted(clips.loc[rows.own, "source"].unique())
    by_source = rows.assign_by_source(folds)
    reason = refused
    if not reason and len(sources) < 2:
        only = f"all {target} clips are of one source ({sources[0]})" if sources else ""
        reason = only or f"no {target} clips"
    if not reason and len(np.unique(rows.instrument[rows.testable(by_source)])) < 2:
        reason = f"fewer than two classes have {target} clips of more than one source"
    missing: dict[Protocol, str] = {}
    if reason:
        missing = dict.fromkeys(("size_matched", "cross_source"), reason)
    else:
        fold["size_matched"] = rows.assign_alike(by_source, np.random.default_rng([seed, 1]))
        fold["cross_source"] = by_source
    tested = np.all([rows.testable(each) for each in fold.values()], axis=0)
    if clips.loc[tested, "instrument"].nunique() < 2:
        lone = f"fewer than two classes have {target} clips of more than one recording"
        fold, missing = {}, {protocol: missing.get(protocol, lone) for protocol in PROTOCOLS}
        tested = np.zeros(len(clips), dtype=bool)
    return Plan(target, clips, fold, tested, rows.left_out(rows.own & ~tested), missing)


class _Rows:
    """The clips of one target modality, as codes."""

    def __init__(self, clips: pd.DataFrame, target: Modality) -> None:
        self.clips, self.target = clips, target
        present = clips[target].notna().to_numpy()
        classes = clips["instrument"].fillna("").to_numpy(dtype=str)
        self.names, self.instrument = np.unique(classes, return_inverse=True)
        translation = (clips["subset"] == "translation").to_numpy()
        training = (clips["split"] == "train").to_numpy()
        self.own = present & ~translation & (classes != "")
        """Rows that may be tested."""
        self.movable = present
        """Rows that a fold may hold out."""
        self.needed = [self.own]
        """Rows of which a class needs some outside a fold."""
        if (clips["pairing"] == "class").any():
            # without a class's audio the translation cannot pair its images
            self.needed.append(present & translation & training)
        # rows of one cell may replace one another: subset, split of the translation, class
        kind = np.where(translation, np.where(training, 1, 2), 0)
        self.cell = self.instrument + len(self.names) * kind
        self.group = pd.factorize(clips["group"])[0]
        self.source, self.sources = pd.factorize(clips["source"], sort=True)

    def assign_evenly(self, folds: int, rng: np.random.Generator) -> np.ndarray:
        rows = np.bincount(self.instrument[self.own], minlength=len(self.names))
        quota = np.repeat(rows[:, None] / folds, folds, axis=1)
        fold = np.full(len(self.own), -1, dtype=np.intp)
        groups = pd.factorize(self.group[self.own], sort=True)[0]
        fold[self.own] = assign_groups(groups, self.instrument[self.own], quota, rng)
        return fold

    def assign_by_source(self, folds: int) -> np.ndarray:
        if not len(self.own):
            return np.full(0, -1, dtype=np.intp)
        tables = []
        for rows in self.needed:
            table = np.zeros((len(self.sources), len(self.names)), dtype=np.int64)
            np.add.at(table, (self.source[rows], self.instrument[rows]), 1)
            tables.append(table)
        of_source = assign_sources(tables[0], tables, folds)
        return np.where(self.movable, of_source[self.source], -1)

    def assign_alike(self, by_source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The folds of `by_source`, exchanged among the groups of a cell."""
        folds = int(by_source.max()) + 2
        rows = np.flatnonzero(self.movable)
        quota = np.zeros((3 * len(self.names), folds))
        # −1, held out by none, is the last fold
        np.add.at(quota, (self.cell[rows], by_source[rows]), 1)
        fold = np.full(len(by_source), -1, dtype=np.intp)
        groups = pd.factorize(self.group[rows], sort=True)[0]
        assigned = assign_groups(groups, self.cell[rows], quota, rng)
        fold[rows] = np.where(assigned == folds - 1, -1, assigned)
        return fold

    def testable(self, fold: np.ndarray) -> np.ndarray:
        """Rows in folds whose models saw something of the row's class, bool (clips,)."""
        lacking = np.zeros(len(fold), dtype=bool)
        folds = int(fold.max(initial=-1)) + 1
        for rows in self.needed:
            held = np.zeros((folds + 1, len(self.names)), dtype=np.int64)
            np.add.at(held, (fold[rows], self.instrument[rows]), 1)
            nothing = untrainable(held, held.sum(axis=0))
            nothing[-1] = False  # those that no fold holds out
            lacking |= nothing[fold, self.instrument]
        return self.own & (fold >= 0) & ~lacking

    def left_out(self, dropped: np.ndarray) -> tuple[LeftOut, ...]:
        rows = []
        for instrument, clips in self.clips[dropped].groupby("instrument", sort=True):
            every = self.clips[self.own & (self.clips["instrument"] == instrument).to_numpy()]
            sources = every["source"].unique()
            if every["group"].nunique() == 1:
                reason = f"all its {self.target} clips are of one recording"
            elif len(sources) == 1:
                reason = f"all its {self.target} clips are of one source ({sources[0]})"
            else:
                reason = f"it has no {self.target} clips to train on outside its fold"
            rows.append(LeftOut(instrument=str(instrument), rows=len(clips), reason=reason))
        return tuple(rows)


def answer(
    plan: Plan,
    protocol: Protocol,
    fold: int,
    translated: Mapping[Modality, LabelledFeatures],
    reduced: Mapping[Modality, LabelledFeatures],
    settings: ForestSettings,
    seed: int,
) -> pd.DataFrame:
    """Every system's answers to the rows of one fold: columns system, regime, clip_id, truth,
    predicted, train_rows.

    `translated` and `reduced` are the classification rows of each modality in spaces that were
    made without the fold; the forests are grown on those outside it.
    """
    held, tested = plan.held_out(protocol, fold), plan.tested_ids(protocol, fold)

    def divided(
        features: Mapping[Modality, LabelledFeatures],
    ) -> dict[str, dict[Modality, LabelledFeatures]]:
        train, test = {}, {}
        for modality in MODALITIES:
            rows = features[modality]
            train[modality] = rows.take(~np.isin(rows.clip_ids, list(held)))
            wanted = list(tested) if modality == plan.target else []
            test[modality] = rows.take(np.isin(rows.clip_ids, wanted))
        return {"train": train, "test": test}

    outcomes, _ = evaluate(divided(translated), divided(reduced), settings, seed)
    return pd.concat(
        [
            o.predictions.assign(system=o.system, regime=o.regime, train_rows=o.train_rows)
            for o in outcomes
            if o.target == plan.target
        ],
        ignore_index=True,
    )
