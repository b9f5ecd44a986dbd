"""Whether a newcomer beats what is in use by more than the noise.

The rule
--------
Both are scored on the same validation rows. The newcomer wins where the 95 % confidence interval
of its gain lies above a threshold (0 unless told otherwise), so that a newcomer that is no better
wins in one case of forty. The interval is a bootstrap over the rows' groups (recordings that must
not be split), the same resamples for both (`anymodal.resampling`).

Two kinds of newcomer, two kinds of noise:

models      A model is what it is; what is uncertain is which rows happened to be there. One set of
            answers each, groups resampled.
parameters  Another training of the same parameters would have given another model. Several seeds
            of each, paired, and the seeds are resampled with the groups.

A comparison on the rows that a search was steered by stays flattering, since the search has seen
them: fresh seeds take the luck of the trainings out of it, not that of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from anymodal.resampling import Interval, Resampled, Resampling, Score
from anymodal.statistics import macro_f1_score, mean_score


@dataclass(frozen=True)
class Gain:
    """What a newcomer's score is above that of the one in use."""

    new: float
    old: float
    interval: Interval | None
    """95 % interval of the gain; None where no two groups could be exchanged."""
    groups: int
    seeds: int

    @property
    def value(self) -> float:
        """The gain itself."""
        return self.new - self.old

    def beats(self, threshold: float = 0.0) -> bool:
        """Whether the whole interval lies above `threshold`."""
        return self.interval is not None and self.interval.low > threshold

    def __str__(self) -> str:
        told = f"{self.new:.4f} against {self.old:.4f}: {self.value:+.4f}"
        if self.interval is None:
            return f"{told}, interval unknown: too few groups"
        return f"{told}, 95 % interval {self.interval.low:+.4f} to {self.interval.high:+.4f}"


def gain(new: Score, old: Score, groups: Sequence[str] | np.ndarray, seed: int = 0) -> Gain:
    """Compare two scores of the same items, whose groups are named; seeds are paired by place."""
    several = new.seeds > 1
    how = Resampling(seed=seed, resample_seeds=several, method="percentile" if several else "bca")
    resampled = Resampled([new, old], groups, how)
    interval = resampled.interval(lambda values: values[0] - values[1])
    return Gain(new.value, old.value, interval, resampled.groups, new.seeds)


def together(scores: Sequence[Score], kinds: Sequence[str]) -> Score:
    """The mean of scores that have items of their own, as one score of all items in order.

    `kinds` names what each score's items are, such as their modality: items of different kinds do
    not stand in for one another in a resample.
    """
    widths = [score.terms.shape[1] for score in scores]
    ends = np.cumsum([0, *widths])
    terms = np.zeros((sum(len(score.terms) for score in scores), ends[-1]))
    row = 0
    for score, start, stop in zip(scores, ends, ends[1:], strict=False):
        terms[row : row + len(score.terms), start:stop] = score.terms
        row += len(score.terms)
    most = 1 + max((int(score.strata.max(initial=0)) for score in scores), default=0)
    known = list(dict.fromkeys(kinds))
    strata = [
        score.strata + most * known.index(kind) for score, kind in zip(scores, kinds, strict=True)
    ]

    def of(sums: np.ndarray) -> np.ndarray:
        parts = [
            score.of(sums[..., start:stop])
            for score, start, stop in zip(scores, ends, ends[1:], strict=False)
        ]
        return np.mean(parts, axis=0)

    return Score(terms, np.concatenate(strata), scores[0].seeds, of)


@dataclass(frozen=True)
class Evidence:
    """A model's answers to validation rows, kept with its run so that later ones can be compared.

    `rows` has the columns modality, clip_id and group, and either truth and predicted (a
    classifier's answers) or score (a translation's NDCG of each query, NaN where undefined).
    """

    measure: str
    """What is compared, such as `macro F1`."""
    context: Mapping[str, Any]
    """What else has to be the same for a comparison to mean anything: dataset, pairing, classes."""
    rows: pd.DataFrame

    @property
    def score(self) -> Score:
        """Mean over the modalities of the measure on their rows."""
        rows = self._ordered()
        parts, kinds = [], []
        for modality, own in rows.groupby("modality", sort=False):
            kinds.append(str(modality))
            if "score" in own:
                parts.append(mean_score(own["score"].to_numpy(dtype=float)))
            else:
                truth, predicted = own["truth"].to_numpy(str), own["predicted"].to_numpy(str)
                parts.append(macro_f1_score(truth, predicted, self.context["classes"]))
        return together(parts, kinds)

    @property
    def groups(self) -> np.ndarray:
        """Each row's group, in the order of the score's items."""
        return self._ordered()["group"].to_numpy(str)

    def differs(self, other: Evidence) -> str | None:
        """Why the two cannot be compared; None where they can."""
        if self.measure != other.measure:
            return f"it was judged by {other.measure}, not by {self.measure}"
        for name in self.context:
            if self.context[name] != other.context.get(name):
                return f"it was made for another {name}"
        keys = ["modality", "clip_id", *(["truth"] if "truth" in self.rows else [])]
        ours, theirs = (one._ordered()[keys].to_numpy(str) for one in (self, other))
        if ours.shape != theirs.shape or (ours != theirs).any():
            return "it was judged on other validation rows"
        return None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        rows = {name: self.rows[name].to_list() for name in self.rows}
        return {"measure": self.measure, "context": dict(self.context), "rows": rows}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Evidence:
        """What `as_dict` gave."""
        return cls(told["measure"], told["context"], pd.DataFrame(told["rows"]))

    def _ordered(self) -> pd.DataFrame:
        return self.rows.sort_values(["modality", "clip_id"], kind="stable")


@dataclass(frozen=True)
class Decision:
    """Whether the newcomer becomes champion, and why."""

    moves: bool
    reason: str
    gain: Gain | None = None

    def tags(self) -> dict[str, str]:
        """For the registered version."""
        told = {"champion_decision": f"{'champion' if self.moves else 'kept out'}: {self.reason}"}
        if self.gain is not None:
            told["champion_gain"] = f"{self.gain.value:.6f}"
            if self.gain.interval is not None:
                low, high = self.gain.interval
                told["champion_gain_interval"] = f"{low:.6f} {high:.6f}"
        return told


def decide(new: Evidence | None, old: Evidence | None, exists: bool = True) -> Decision:
    """Whether a new model takes the place of the champion.

    It does where there is no champion (`exists` is false), where the two cannot be compared (the
    champion has no evidence, or was made for or judged on something else), and where it is better
    by more than the noise.
    """
    if not exists:
        return Decision(True, "there was no champion")
    if new is None or old is None:
        return Decision(True, "without evidence of both there is nothing to compare")
    if reason := new.differs(old):
        return Decision(True, f"the champion cannot be compared: {reason}")
    found = gain(new.score, old.score, new.groups)
    if found.beats():
        return Decision(True, f"better by more than the noise ({found})", found)
    return Decision(False, f"not better by more than the noise ({found})", found)
