"""The division itself, on whole numbers: which group of rows goes to which split.

Terms and rules are told in `anymodal.dataset.subsets`, which turns a clip table into what is
asked for here and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from anymodal.dataset.allotment import apportion, deal, spread_order
from anymodal.errors import AnymodalError
from anymodal.params import DatasetParams

PARTS = (
    ("classification", "train"),
    ("classification", "valid"),
    ("classification", "test"),
    ("retrieval", "test"),
    ("translation", "train"),
    ("translation", "valid"),
)
"""Subset and split behind every part number."""

_RETRIEVAL, _TRANSLATION, _TRANSLATION_VALID = 3, 4, 5
_POOL = -1
_LEAST = {"classification": 3, "retrieval": 1, "translation": 2}
_FEWEST = sum(_LEAST.values())


@dataclass
class Division:
    """State of a division: `part` (G,) of every group, `row_part` (N,) of every row; −1 is none.

    Parameters: `stratum`, `group` and `turn` (N,) of every row, the turn being the row's place in
    its group, from 0, in the order in which rows are kept; `source` (G,) of every group; `names`,
    `modality` and `classified` (S,) of every stratum.
    """

    stratum: np.ndarray
    group: np.ndarray
    turn: np.ndarray
    source: np.ndarray
    names: list[str]
    modality: np.ndarray
    classified: np.ndarray
    params: DatasetParams
    rng: np.random.Generator
    home: np.ndarray = field(init=False)
    rank: np.ndarray = field(init=False)
    part: np.ndarray = field(init=False)
    row_part: np.ndarray = field(init=False)
    wanted: np.ndarray = field(init=False)
    """Rows wanted (S, parts); NaN where nothing is."""

    def __post_init__(self) -> None:
        count = len(self.source)
        cells = np.unique(np.stack([self.group, self.stratum], axis=1), axis=0)
        commonness = np.bincount(cells[:, 1], minlength=len(self.names)).astype(np.float64)
        commonness[~self.classified] = np.inf
        rarity = np.empty(len(self.names), dtype=np.int64)
        rarity[np.argsort(commonness, kind="stable")] = np.arange(len(self.names))
        rarest = np.full(count, len(self.names))
        np.minimum.at(rarest, cells[:, 0], rarity[cells[:, 1]])
        self.home = np.argsort(rarity)[rarest]
        self.rank = spread_order(self.home, self.source, self.rng)
        self.part = np.full(count, _POOL)
        self.row_part = np.full(len(self.group), _POOL)
        self.wanted = np.full((len(self.names), len(PARTS)), np.nan)
        self._rows = np.bincount(self.group, minlength=count)
        at_home = self.home[self.group] == self.stratum
        self._home_rows = np.bincount(self.group[at_home], minlength=count)
        self._stratum_rows = np.bincount(self.stratum, minlength=len(self.names))
        order = np.lexsort([self.rank, self.home])
        bounds = np.searchsorted(self.home[order], np.arange(len(self.names) + 1))
        self._members = [order[a:b] for a, b in pairwise(bounds)]
        self._reserves = [self._reserve(number) for number in range(len(self.names))]

    def run(self) -> None:
        """Divide."""
        self._classification()
        total = len(self.group)
        for part, amount in (
            (_RETRIEVAL, self.params.retrieval),
            (_TRANSLATION, self.params.translation),
        ):
            share = amount if amount < 1 else amount / total
            self.wanted[:, part] = np.round(share * self._stratum_rows)
            if amount >= 1:
                self._draw_number(part, int(amount))
            else:
                self._draw_share(part)
        self._hold_out()
        held = self.params.translation_valid
        self.wanted[:, _TRANSLATION_VALID] = np.round(held * self.wanted[:, _TRANSLATION])
        self.wanted[:, _TRANSLATION] -= self.wanted[:, _TRANSLATION_VALID]

    def _reserve(self, stratum: int) -> tuple[int, int]:
        """Groups of a stratum that classification leaves to retrieval and to translation."""
        groups = len(self._members[stratum])
        if not self.classified[stratum]:
            return round(min(self.params.retrieval, 1) * groups), 0
        if groups < _FEWEST:
            raise AnymodalError(
                f"{self.names[stratum]} has {groups} group(s) of recordings or pictures of its "
                f"own; {_FEWEST} are needed, one for each split: add files, or leave it out"
            )
        left = []
        for subset, amount in (
            ("retrieval", self.params.retrieval),
            ("translation", self.params.translation),
        ):
            share = amount if amount < 1 else amount / len(self.group)
            # with a fixed number for each subset, a rare class may go to classification whole
            if amount >= 1 and self.params.per_class:
                share = 0.0
            left.append(max(_LEAST[subset], int(share * groups + 0.5)))
        retrieval, translation = left
        spare = groups - _LEAST["classification"]
        translation = max(_LEAST["translation"], min(translation, spare - retrieval))
        return min(retrieval, spare - translation), translation

    # classification

    def _classification(self) -> None:
        valid, test = self.params.classification_valid, self.params.classification_test
        if valid + test >= 1:
            raise AnymodalError(
                f"dataset.classification_valid ({valid:g}) and classification_test ({test:g}) "
                "leave nothing to train on; together they must stay below 1"
            )
        beside = [each for each in (self.params.translation, self.params.retrieval) if each < 1]
        if sum(beside) >= 1:
            raise AnymodalError(
                f"dataset.translation and retrieval take {sum(beside):g} of the groups and leave "
                "none to classification; together they must stay below 1"
            )
        shares = np.array([1 - valid - test, valid, test])
        wanted = self.params.per_class
        if wanted is not None and wanted < 3:
            raise AnymodalError(
                f"dataset.per_class is {wanted}; at least 3 are needed, one for each split"
            )
        goal = None if wanted is None else apportion(wanted, shares, least=1)
        strata = np.flatnonzero(self.classified)
        parts = {stratum: self._random_parts(stratum, shares, goal) for stratum in strata.tolist()}
        self._rescue_poor(parts, shares, goal)
        for stratum, chosen in parts.items():
            self.part[self._members[stratum]] = chosen
        rows = np.flatnonzero((self.part[self.group] >= 0) & self.classified[self.stratum])
        have = np.zeros((len(self.names), 3), dtype=np.int64)
        np.add.at(have, (self.stratum[rows], self.part[self.group[rows]]), 1)
        if goal is not None and (have[strata] < goal).any():
            self._refuse(strata, have, goal)
        goals = np.zeros_like(have)
        for stratum in strata.tolist():
            alike = strata[self.modality[strata] == self.modality[stratum]]
            goals[stratum] = have[alike].min(axis=0) if goal is None else goal
        self.wanted[strata, :3] = goals[strata]
        self._cut(rows, goals)

    def _spare(self, stratum: int) -> int:
        return len(self._members[stratum]) - sum(self._reserves[stratum])

    def _random_parts(
        self, stratum: int, shares: np.ndarray, goal: np.ndarray | None
    ) -> np.ndarray:
        """Parts of a stratum's groups, by rank: consecutive stretches for test, valid, train."""
        spare = self._spare(stratum)
        if goal is not None and spare >= goal.sum():
            counts = goal + apportion(spare - int(goal.sum()), shares)
        else:
            counts = apportion(spare, shares, least=1)
        parts = np.full(len(self._members[stratum]), _POOL)
        parts[:spare] = np.repeat([2, 1, 0], counts[::-1])
        return parts

    def _rescue_poor(
        self, parts: dict[int, np.ndarray], shares: np.ndarray, goal: np.ndarray | None
    ) -> None:
        """Deal the largest groups to those strata that hold the others back."""

        def rows_of(stratum: int, chosen: np.ndarray) -> np.ndarray:
            dealt = chosen >= 0
            sizes = self._home_rows[self._members[stratum]]
            return np.bincount(chosen[dealt], weights=sizes[dealt], minlength=3)

        have = {stratum: rows_of(stratum, chosen) for stratum, chosen in parts.items()}
        untried = set(parts)
        while True:
            poor = [
                stratum
                for stratum in sorted(untried)
                if (
                    have[stratum] < goal
                    if goal is not None
                    else have[stratum] <= self._floor(have, stratum)
                ).any()
            ]
            if not poor:
                return
            for stratum in poor:
                untried.remove(stratum)
                sizes = self._home_rows[self._members[stratum]]
                chosen = deal(sizes, shares, self._spare(stratum))
                rows = rows_of(stratum, chosen)
                if (rows / shares).min() > (have[stratum] / shares).min():
                    parts[stratum], have[stratum] = chosen, rows

    def _floor(self, have: dict[int, np.ndarray], stratum: int) -> np.ndarray:
        """What the poorest stratum of the same modality has in each split."""
        kind = self.modality[stratum]
        return np.min([rows for each, rows in have.items() if self.modality[each] == kind], axis=0)

    def _refuse(self, strata: np.ndarray, have: np.ndarray, goal: np.ndarray) -> None:
        poorest = strata[np.argmin((have[strata] / goal).min(axis=1))]
        splits = ", ".join(
            f"{split} {had} of {want}"
            for (_, split), had, want in zip(PARTS, have[poorest], goal, strict=False)
        )
        raise AnymodalError(
            f"{self.names[poorest]}: dataset.per_class wants {goal.sum()} rows, "
            f"{have[poorest].sum()} are available to classification beside retrieval and "
            f"translation ({splits}); lower per_class or the shares, or add files"
        )

    def _cut(self, rows: np.ndarray, goals: np.ndarray) -> None:
        """Keep the goals' (S, 3) rows of each stratum and split; free groups without any."""
        part = self.part[self.group[rows]]
        order = np.lexsort([self.rank[self.group[rows]], self.turn[rows], part, self.stratum[rows]])
        cell = (self.stratum[rows] * len(PARTS) + part)[order]
        place = np.arange(len(rows)) - np.searchsorted(cell, cell)
        kept = order[place < goals[self.stratum[rows][order], part[order]]]
        self.row_part[rows[kept]] = part[kept]
        needed = np.zeros(len(self.part), dtype=bool)
        needed[self.group[rows[kept]]] = True
        self.part[~needed] = _POOL

    # retrieval and translation

    def _pool(self, stratum: int) -> np.ndarray:
        members = self._members[stratum]
        return members[self.part[members] == _POOL]

    def _take(self, groups: np.ndarray, part: int) -> None:
        self.part[groups] = part
        taken = np.zeros(len(self.part), dtype=bool)
        taken[groups] = True
        self.row_part[taken[self.group]] = part

    def _draw_share(self, part: int) -> None:
        for stratum, (retrieval, _) in enumerate(self._reserves):
            pool = self._pool(stratum)
            self._take(pool[:retrieval] if part == _RETRIEVAL else pool, part)

    def _draw_number(self, part: int, number: int) -> None:
        """Groups of all strata in proportion until `number` rows are had; the last one is cut."""
        subset = PARTS[part][0]
        pools, keys = [np.empty(0, dtype=np.int64)], [np.empty(0)]
        for stratum in range(len(self.names)):
            pool = self._pool(stratum)
            first = _LEAST[subset] if self.classified[stratum] else 0
            if part == _RETRIEVAL and self.classified[stratum]:
                pool = pool[: len(pool) - _LEAST["translation"]]
            key = (np.arange(len(pool)) + 0.5) / max(1, len(pool))
            key[:first] = -1
            pools.append(pool)
            keys.append(key)
        pool, key = np.concatenate(pools), np.concatenate(keys)
        rows, available = self._rows[pool], int(self._rows[pool].sum())
        least = int(rows[key < 0].sum())
        if not least <= number <= available:
            raise AnymodalError(
                f"dataset.{subset} wants {number} clips, "
                + (f"{available} are available" if number > available else f"{least} is the least")
                + "; choose another number, or a share below 1"
            )
        order = np.lexsort([self.rng.random(len(pool)), key])
        before = np.cumsum(rows[order]) - rows[order]
        taken = pool[order[before < number]]
        self._take(taken, part)
        surplus = int(self._rows[taken].sum()) - number
        last = np.flatnonzero(self.group == taken[-1])
        self.row_part[last[self.turn[last] >= len(last) - surplus]] = _POOL

    def _hold_out(self) -> None:
        """Move the validation share of every stratum's translation groups."""
        for stratum, members in enumerate(self._members):
            groups = members[self.part[members] == _TRANSLATION]
            held = int(self.params.translation_valid * len(groups) + 0.5)
            if self.classified[stratum]:
                held = min(max(held, 1), len(groups) - 1)
            chosen = np.zeros(len(self.part), dtype=bool)
            chosen[groups[:held]] = True
            self.part[chosen] = _TRANSLATION_VALID
            self.row_part[chosen[self.group] & (self.row_part == _TRANSLATION)] = _TRANSLATION_VALID
