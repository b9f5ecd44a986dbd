"""Two protocols beside each other: tested within sources, and across sources.

Goal: to see how much of a score rests on test rows coming from the collections that the models
were trained on. Recordings of one collection share players, rooms and microphones, so a split that
only keeps recordings apart flatters.

The classification subset is cross-validated, all its splits pooled. Every protocol tests the same
rows, and no model ever saw a row's fold. They differ in how the folds are made:

within    groups (recordings) are dealt to even folds at random, class by class. The translation
          trains on all its rows: its subset shares no group with the classification subset.
across    whole sources are dealt to folds (`anymodal.folds.deal_sources`). Translation, PCA and
          forests are trained without any row of the fold's sources.
matched   as many rows of each class and subset are held out as `across` holds out, but groups
          dealt at random in place of sources. Between `within` and `matched` lies what fewer rows
          cost, between `matched` and `across` what other sources cost.

Conventions
-----------
Target     only rows that have the target modality are dealt and held out: with class-paired data
           a test on sounds holds out sounds, with clip-paired data a sound's picture goes with it.
Left out   rows of a class that has nothing left to train on outside its fold, in any protocol,
           are left out of all of them, and told.
Missing    a protocol that the data cannot carry, such as `across` with a single source, has a
           reason in place of folds.

* :func:`plan`: who tests what
* :func:`answer`: one fold's answers, of projected features
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from anymodal.classification import LabelledFeatures, evaluate
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.folds import deal_groups, deal_sources, untrainable
from anymodal.mixing import Forests

Protocol = Literal["within", "matched", "across"]
PROTOCOLS: tuple[Protocol, ...] = ("within", "matched", "across")
THINGS: dict[Modality, str] = {"audio": "sounds", "image": "pictures"}


@dataclass(frozen=True)
class LeftOut:
    """Rows of one class that no protocol tests."""

    instrument: str
    rows: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """Which fold tests which row of one target modality, under each protocol."""

    target: Modality
    clips: pd.DataFrame
    """The clips dealt with, of the classification and the translation subset."""
    fold: dict[Protocol, np.ndarray]
    """Fold (clips,) that holds each clip out, intp; −1: none does. Of measured protocols only."""
    tested: np.ndarray
    """Whether a clip is tested, bool (clips,)."""
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

    def asked(self, protocol: Protocol, fold: int) -> set[str]:
        """Ids of the clips that the fold tests."""
        return set(self.clips.loc[self.tested & (self.fold[protocol] == fold), "clip_id"])


def plan(clips: pd.DataFrame, target: Modality, folds: int, seed: int, refused: str = "") -> Plan:
    """Deal the rows of one target modality to folds under every protocol.

    `clips` is a clip table with its subsets, without what could not be embedded; rows of other
    subsets than classification and translation are ignored. At most `folds` folds: no more than
    there are sources. Only `within` and `matched` depend on `seed`. `refused` is a reason not to
    measure across sources.
    """
    clips = clips[clips["subset"].isin(("classification", "translation"))].reset_index(drop=True)
    rows = _Rows(clips, target)
    within = rows.deal_evenly(folds, np.random.default_rng([seed, 0]))
    found: dict[Protocol, np.ndarray] = {"within": within}
    missing: dict[Protocol, str] = {}
    things = THINGS[target]
    sources = sorted(clips.loc[rows.own, "source"].unique())
    across = rows.deal_by_source(folds)
    if refused:
        told = refused
    elif len(sources) < 2:
        told = f"all {things} are of one source ({sources[0]})" if sources else f"no {things}"
    elif rows.classes_left(across) < 2:
        told = f"fewer than two classes have {things} of more than one source"
    else:
        told = ""
        found["matched"] = rows.deal_alike(across, np.random.default_rng([seed, 1]))
        found["across"] = across
    if told:
        missing = dict.fromkeys(("matched", "across"), told)
    tested = np.all([rows.testable(one) for one in found.values()], axis=0)
    if clips.loc[tested, "instrument"].nunique() < 2:
        lone = f"fewer than two classes have {things} of more than one recording"
        found, missing = {}, {protocol: missing.get(protocol, lone) for protocol in PROTOCOLS}
        tested = np.zeros(len(clips), dtype=bool)
    return Plan(target, clips, found, tested, _left_out(clips, rows.own & ~tested, rows), missing)


class _Rows:
    """The clips of one target modality, as codes."""

    def __init__(self, clips: pd.DataFrame, target: Modality) -> None:
        self.things = THINGS[target]
        there = clips[target].notna().to_numpy()
        classes = clips["instrument"].fillna("").to_numpy(dtype=str)
        self.names, self.instrument = np.unique(classes, return_inverse=True)
        translation = (clips["subset"] == "translation").to_numpy()
        training = (clips["split"] == "train").to_numpy()
        self.own = there & ~translation & (classes != "")
        """Rows that may be tested."""
        self.movable = there
        """Rows that a fold may hold out."""
        self.needed = [self.own]
        """Rows that a class needs some of outside a fold."""
        if (clips["pairing"] == "class").any():
            # without a class's sounds the translation cannot pair its pictures
            self.needed.append(there & translation & training)
        # how rows of one kind are told from others: subset, split of the translation, class
        kind = np.where(translation, np.where(training, 1, 2), 0)
        self.cell = self.instrument + len(self.names) * kind
        self.cells = 3 * len(self.names)
        self.group = pd.factorize(clips["group"])[0]
        self.source, self.sources = pd.factorize(clips["source"], sort=True)

    def deal_evenly(self, folds: int, rng: np.random.Generator) -> np.ndarray:
        rows = np.bincount(self.instrument[self.own], minlength=len(self.names))
        wanted = np.repeat(rows[:, None] / folds, folds, axis=1)
        dealt = np.full(len(self.own), -1, dtype=np.intp)
        dealt[self.own] = deal_groups(
            _coded(self.group[self.own]), self.instrument[self.own], wanted, rng
        )
        return dealt

    def deal_by_source(self, folds: int) -> np.ndarray:
        if not len(self.own):
            return np.full(0, -1, dtype=np.intp)
        shape = (len(self.sources), len(self.names))
        tables = []
        for rows in self.needed:
            table = np.zeros(shape, dtype=np.int64)
            np.add.at(table, (self.source[rows], self.instrument[rows]), 1)
            tables.append(table)
        of_source = deal_sources(tables[0], tables, folds)
        return np.where(self.movable, of_source[self.source], -1)

    def deal_alike(self, across: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The folds' numbers in `across`, exchanged among the groups of a cell."""
        hands = int(across.max()) + 2
        rows = np.flatnonzero(self.movable)
        wanted = np.zeros((self.cells, hands))
        np.add.at(wanted, (self.cell[rows], across[rows]), 1)  # −1, held by none, is the last hand
        dealt = np.full(len(across), -1, dtype=np.intp)
        hand = deal_groups(_coded(self.group[rows]), self.cell[rows], wanted, rng)
        dealt[rows] = np.where(hand == hands - 1, -1, hand)
        return dealt

    def testable(self, fold: np.ndarray) -> np.ndarray:
        """Rows in folds whose models know something of the row's class, bool (clips,)."""
        lacks = np.zeros(len(fold), dtype=bool)
        folds = int(fold.max(initial=-1)) + 1
        for rows in self.needed:
            held = np.zeros((folds + 1, len(self.names)), dtype=np.int64)
            np.add.at(held, (fold[rows], self.instrument[rows]), 1)
            nothing = untrainable(held, held.sum(axis=0))
            nothing[-1] = False  # those that no fold holds
            lacks |= nothing[fold, self.instrument]
        return self.own & (fold >= 0) & ~lacks

    def classes_left(self, fold: np.ndarray) -> int:
        return len(np.unique(self.instrument[self.testable(fold)]))


def _coded(names: np.ndarray) -> np.ndarray:
    return np.unique(names, return_inverse=True)[1]


def _left_out(clips: pd.DataFrame, out: np.ndarray, rows: _Rows) -> tuple[LeftOut, ...]:
    found = []
    for instrument, some in clips[out].groupby("instrument", sort=True):
        every = clips.loc[rows.own & (clips["instrument"] == instrument).to_numpy()]
        sources = every["source"].unique()
        if every["group"].nunique() == 1:
            reason = f"all its {rows.things} are of one recording"
        elif len(sources) == 1:
            reason = f"all its {rows.things} are of one source ({sources[0]})"
        else:
            reason = f"no {rows.things} of it are left to train on outside its fold"
        found.append(LeftOut(str(instrument), len(some), reason))
    return tuple(found)


def answer(
    plan: Plan,
    protocol: Protocol,
    fold: int,
    translated: Mapping[Modality, LabelledFeatures],
    reduced: Mapping[Modality, LabelledFeatures],
    forests: Forests,
) -> pd.DataFrame:
    """What every system answers to the rows of one fold: columns system, regime, clip_id, truth,
    predicted, train_rows.

    `translated` and `reduced` are the classification rows of each modality in spaces that were
    made without the fold; the forests are grown on those outside it.
    """
    held, asked = plan.held_out(protocol, fold), plan.asked(protocol, fold)

    def divided(
        features: Mapping[Modality, LabelledFeatures],
    ) -> dict[str, dict[Modality, LabelledFeatures]]:
        train, test = {}, {}
        for modality in MODALITIES:
            rows = features[modality]
            train[modality] = rows.take(~np.isin(rows.clip_ids, list(held)))
            wanted = list(asked) if modality == plan.target else []
            test[modality] = rows.take(np.isin(rows.clip_ids, wanted))
        return {"train": train, "test": test}

    evaluation = evaluate(
        divided(translated),
        divided(reduced),
        forests.trees,
        forests.max_depth,
        forests.seed,
        min_leaf=forests.min_leaf,
        max_features=forests.max_features,
    )
    return pd.concat(
        [
            o.predictions.assign(system=o.system, regime=o.regime, train_rows=o.train_rows)
            for o in evaluation.outcomes
            if o.target == plan.target
        ],
        ignore_index=True,
    )
