"""Assignment of groups of rows to subsets and splits, on arrays of codes.

`anymodal.data.subsets` has the rules, and turns a clip table into these arrays and back.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from anymodal.config.params import DatasetParams
from anymodal.core.errors import AnymodalError
from anymodal.data.allotment import apportion, deal, spread_order

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


class Division:
    """Assigns groups to parts; after `run`, `part` and `row_part` hold the result.

    stratum, group, rank_in_group: (rows,) codes of every row; the rank is the order, from 0, in
    which rows of a group are kept. source: (groups,) code of every group's source. strata: (class,
    modality) of every stratum; classification does not use those of class "".
    """

    def __init__(
        self,
        stratum: np.ndarray,
        group: np.ndarray,
        rank_in_group: np.ndarray,
        source: np.ndarray,
        strata: list[tuple[str, str]],
        params: DatasetParams,
        rng: np.random.Generator,
    ) -> None:
        self.stratum, self.group, self.rank_in_group = stratum, group, rank_in_group
        self.strata, self.params, self.rng = strata, params, rng
        self.classified = np.array([bool(name) for name, _ in strata])
        self.modality = np.array([modality for _, modality in strata])
        # part of every group and of every row, -1 for none; rows wanted (strata, parts), or NaN
        self.part = np.full(len(source), _POOL)
        self.row_part = np.full(len(group), _POOL)
        self.wanted = np.full((len(strata), len(PARTS)), np.nan)
        home = self._home_strata(len(source))
        self._order = spread_order(home, source, rng)
        self._rows = np.bincount(group, minlength=len(source))
        self._home_rows = np.bincount(group[home[group] == stratum], minlength=len(source))
        by_home = np.lexsort([self._order, home])
        bounds = np.searchsorted(home[by_home], np.arange(len(strata) + 1))
        self._members = [by_home[a:b] for a, b in pairwise(bounds)]
        self._reserves = [self._reserve(number) for number in range(len(strata))]

    def run(self) -> None:
        """Assign all groups."""
        self._classification()
        rows = np.bincount(self.stratum, minlength=len(self.strata))
        for part, amount in (
            (_RETRIEVAL, self.params.retrieval),
            (_TRANSLATION, self.params.translation),
        ):
            self.wanted[:, part] = np.round(self._share(amount) * rows)
            if amount >= 1:
                self._draw_number(part, int(amount))
            else:
                self._draw_share(part)
        self._hold_out()

    def _share(self, amount: float) -> float:
        """A share of the rows, of a share (below 1) or a number of clips."""
        return amount if amount < 1 else amount / len(self.group)

    def _home_strata(self, groups: int) -> np.ndarray:
        """The stratum (groups,) of every group: the rarest that it has rows of."""
        cells = np.unique(np.stack([self.group, self.stratum], axis=1), axis=0)
        commonness = np.bincount(cells[:, 1], minlength=len(self.strata)).astype(np.float64)
        commonness[~self.classified] = np.inf
        by_rarity = np.argsort(commonness, kind="stable")
        rarity = np.argsort(by_rarity)
        rarest = np.full(groups, len(self.strata))
        np.minimum.at(rarest, cells[:, 0], rarity[cells[:, 1]])
        return by_rarity[rarest]

    def _reserve(self, stratum: int) -> tuple[int, int]:
        """Groups of a stratum that classification leaves to retrieval and to translation."""
        groups = len(self._members[stratum])
        if not self.classified[stratum]:
            return round(min(self.params.retrieval, 1) * groups), 0
        if groups < _FEWEST:
            raise AnymodalError(
                f"{self._name(stratum)} has {groups} group(s) of recordings or images, but "
                f"{_FEWEST} are needed, one for each split: add files, or leave it out"
            )
        left = []
        for subset, amount in (
            ("retrieval", self.params.retrieval),
            ("translation", self.params.translation),
        ):
            # with a fixed number for each subset, a rare class may go to classification whole
            share = 0.0 if amount >= 1 and self.params.per_class else self._share(amount)
            left.append(max(_LEAST[subset], int(share * groups + 0.5)))
        retrieval, translation = left
        spare = groups - _LEAST["classification"]
        translation = max(_LEAST["translation"], min(translation, spare - retrieval))
        return min(retrieval, spare - translation), translation

    def _name(self, stratum: int) -> str:
        name, modality = self.strata[stratum]
        where = "" if modality == "both" else f" ({modality})"
        return f"class {name!r}{where}" if name else f"rows without a class{where}"

    # classification

    def _classification(self) -> None:
        valid, test = self.params.classification_valid, self.params.classification_test
        shares = np.array([1 - valid - test, valid, test])
        wanted = self.params.per_class
        goal = None if wanted is None else apportion(wanted, shares, least=1)
        strata = np.flatnonzero(self.classified)
        parts = {stratum: self._random_parts(stratum, shares, goal) for stratum in strata.tolist()}
        self._deal_to_poor(parts, shares, goal)
        for stratum, chosen in parts.items():
            self.part[self._members[stratum]] = chosen
        rows = np.flatnonzero((self.part[self.group] >= 0) & self.classified[self.stratum])
        have = np.zeros((len(self.strata), 3), dtype=np.int64)
        np.add.at(have, (self.stratum[rows], self.part[self.group[rows]]), 1)
        if goal is not None and (have[strata] < goal).any():
            self._refuse(strata, have, goal)
        goals = np.zeros_like(have)
        for stratum in strata.tolist():
            peers = strata[self.modality[strata] == self.modality[stratum]]
            goals[stratum] = have[peers].min(axis=0) if goal is None else goal
        self.wanted[strata, :3] = goals[strata]
        self._cut(rows, goals)

    def _spare(self, stratum: int) -> int:
        return len(self._members[stratum]) - sum(self._reserves[stratum])

    def _random_parts(
        self, stratum: int, shares: np.ndarray, goal: np.ndarray | None
    ) -> np.ndarray:
        """Parts of a stratum's groups, in their order: consecutive runs of test, valid, train."""
        spare = self._spare(stratum)
        if goal is not None and spare >= goal.sum():
            counts = goal + apportion(spare - int(goal.sum()), shares)
        else:
            counts = apportion(spare, shares, least=1)
        parts = np.full(len(self._members[stratum]), _POOL)
        parts[:spare] = np.repeat([2, 1, 0], counts[::-1])
        return parts

    def _deal_to_poor(
        self, parts: dict[int, np.ndarray], shares: np.ndarray, goal: np.ndarray | None
    ) -> None:
        """Deal the largest groups to the strata that hold the others back."""

        def rows_of(stratum: int, chosen: np.ndarray) -> np.ndarray:
            dealt = chosen >= 0
            sizes = self._home_rows[self._members[stratum]]
            return np.bincount(chosen[dealt], weights=sizes[dealt], minlength=3)

        def is_poor(stratum: int) -> bool:
            if goal is not None:
                return bool((have[stratum] < goal).any())
            peers = [have[s] for s in have if self.modality[s] == self.modality[stratum]]
            return bool((have[stratum] <= np.min(peers, axis=0)).any())

        have = {stratum: rows_of(stratum, chosen) for stratum, chosen in parts.items()}
        untried = set(parts)
        while poor := [stratum for stratum in sorted(untried) if is_poor(stratum)]:
            untried.difference_update(poor)
            for stratum in poor:
                sizes = self._home_rows[self._members[stratum]]
                chosen = deal(sizes, shares, self._spare(stratum))
                rows = rows_of(stratum, chosen)
                if (rows / shares).min() > (have[stratum] / shares).min():
                    parts[stratum], have[stratum] = chosen, rows

    def _refuse(self, strata: np.ndarray, have: np.ndarray, goal: np.ndarray) -> None:
        poorest = strata[np.argmin((have[strata] / goal).min(axis=1))]
        splits = ", ".join(
            f"{split} {had} of {want}"
            for (_, split), had, want in zip(PARTS, have[poorest], goal, strict=False)
        )
        raise AnymodalError(
            f"{self._name(poorest)}: dataset.per_class wants {goal.sum()} rows, "
            f"{have[poorest].sum()} are available to classification beside retrieval and "
            f"translation ({splits}); lower per_class or the shares, or add files"
        )

    def _cut(self, rows: np.ndarray, goals: np.ndarray) -> None:
        """Keep `goals` (strata, 3) rows of each stratum and split; free groups without any."""
        stratum, group = self.stratum[rows], self.group[rows]
        part = self.part[group]
        order = np.lexsort([self._order[group], self.rank_in_group[rows], part, stratum])
        cell = (stratum * len(PARTS) + part)[order]
        place = np.arange(len(rows)) - np.searchsorted(cell, cell)
        kept = order[place < goals[stratum[order], part[order]]]
        self.row_part[rows[kept]] = part[kept]
        needed = np.zeros(len(self.part), dtype=bool)
        needed[group[kept]] = True
        self.part[~needed] = _POOL

    # retrieval and translation

    def _pool(self, stratum: int) -> np.ndarray:
        members = self._members[stratum]
        return members[self.part[members] == _POOL]

    def _take(self, groups: np.ndarray, part: int) -> None:
        self.part[groups] = part
        self.row_part[np.isin(self.group, groups)] = part

    def _draw_share(self, part: int) -> None:
        for stratum, (retrieval, _) in enumerate(self._reserves):
            pool = self._pool(stratum)
            self._take(pool[:retrieval] if part == _RETRIEVAL else pool, part)

    def _draw_number(self, part: int, number: int) -> None:
        """Take groups of all strata in proportion until `number` rows; the last one is cut."""
        subset = PARTS[part][0]
        pools, keys = [np.empty(0, dtype=np.int64)], [np.empty(0)]
        for stratum, classified in enumerate(self.classified.tolist()):
            pool = self._pool(stratum)
            if part == _RETRIEVAL and classified:
                pool = pool[: len(pool) - _LEAST["translation"]]
            key = (np.arange(len(pool)) + 0.5) / max(1, len(pool))
            key[: _LEAST[subset] if classified else 0] = -1
            pools.append(pool)
            keys.append(key)
        pool, key = np.concatenate(pools), np.concatenate(keys)
        rows = self._rows[pool]
        available, least = int(rows.sum()), int(rows[key < 0].sum())
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
        self.row_part[last[self.rank_in_group[last] >= len(last) - surplus]] = _POOL

    def _hold_out(self) -> None:
        """Move the validation share of every stratum's translation groups."""
        share = self.params.translation_valid
        for stratum, members in enumerate(self._members):
            groups = members[self.part[members] == _TRANSLATION]
            held = int(share * len(groups) + 0.5)
            if self.classified[stratum]:
                held = min(max(held, 1), len(groups) - 1)
            self.part[groups[:held]] = _TRANSLATION_VALID
            moved = np.isin(self.group, groups[:held]) & (self.row_part == _TRANSLATION)
            self.row_part[moved] = _TRANSLATION_VALID
        self.wanted[:, _TRANSLATION_VALID] = np.round(share * self.wanted[:, _TRANSLATION])
        self.wanted[:, _TRANSLATION] -= self.wanted[:, _TRANSLATION_VALID]
