"""Whether a new model is better than the one in use by more than the noise.

Both are scored on the same validation rows; the new one wins where the 95 % interval of its gain
lies above a threshold. The interval is a bootstrap over the rows' groups, with the same resamples
for both; of parameters, with which several seeds are trained, the seeds are resampled too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.linalg import block_diag

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.config.params import RetrieveParams
from anymodal.core.modality import MODALITIES, Modality
from anymodal.data.info import DatasetInfo
from anymodal.embeddings.rows import Rows
from anymodal.evaluation.resampling import Interval, Resampled, Resampling, Score
from anymodal.evaluation.retrieval import retrieve_rows
from anymodal.evaluation.statistics import macro_f1_score, mean_score
from anymodal.projection.base import Projection
from anymodal.projection.training_data import TrainingData


@dataclass(frozen=True)
class Gain:
    """The score of a new model, or of new parameters, and that of the one in use."""

    new: float
    old: float
    interval: Interval | None
    """95 % interval of the gain; None with too few groups."""
    groups: int
    seeds: int

    @property
    def value(self) -> float:
        """`new` − `old`."""
        return self.new - self.old

    def beats(self, threshold: float = 0.0) -> bool:
        """Whether the whole interval lies above `threshold`."""
        return self.interval is not None and self.interval.low > threshold

    def __str__(self) -> str:
        text = f"{self.new:.4f} against {self.old:.4f}: {self.value:+.4f}"
        if self.interval is None:
            return f"{text}, interval unknown: too few groups"
        return f"{text}, 95 % interval {self.interval.low:+.4f} to {self.interval.high:+.4f}"


def gain(new: Score, old: Score, groups: Sequence[str] | np.ndarray, seed: int = 0) -> Gain:
    """Compare two scores of the same items, whose groups are named; seeds are paired by place."""
    how = Resampling(seed=seed, resample_seeds=new.seeds > 1)
    resampled = Resampled([new, old], groups, how)
    interval = resampled.interval(lambda values: values[0] - values[1])
    return Gain(new.value, old.value, interval, resampled.groups, new.seeds)


def mean_score_of(scores: Sequence[Score], kinds: Sequence[str]) -> Score:
    """The mean of several scores, as one score of all their items.

    `kinds` names each score's items, such as their modality: a resample exchanges items of one
    kind only.
    """
    terms = block_diag(*(score.terms for score in scores))
    ends = np.cumsum([score.terms.shape[1] for score in scores])[:-1]
    most = 1 + max((int(score.strata.max(initial=0)) for score in scores), default=0)
    known = list(dict.fromkeys(kinds))
    strata = [
        score.strata + most * known.index(kind) for score, kind in zip(scores, kinds, strict=True)
    ]

    def of(sums: np.ndarray) -> np.ndarray:
        parts = np.split(sums, ends, axis=-1)
        return np.mean([s.of(part) for s, part in zip(scores, parts, strict=True)], axis=0)

    return Score(terms, np.concatenate(strata), scores[0].seeds, of)


@dataclass(frozen=True)
class ValidationScores:
    """A model's answers to validation rows, kept with its run for later comparisons."""

    measure: str
    """What is compared, such as `macro F1`."""
    context: Mapping[str, Any]
    """What must be the same for a comparison: dataset, pairing, classes or pair."""
    rows: pd.DataFrame
    """Columns modality, clip_id, group, and either truth and predicted (of a classifier) or score
    (a translation's NDCG of each query, NaN where undefined)."""

    def __post_init__(self) -> None:
        rows = self.rows.sort_values(["modality", "clip_id"], kind="stable", ignore_index=True)
        object.__setattr__(self, "rows", rows)

    @property
    def score(self) -> Score:
        """Mean over the modalities of the measure on their rows."""
        parts, kinds = [], []
        for modality, own in self.rows.groupby("modality", sort=False):
            kinds.append(str(modality))
            if "score" in own:
                parts.append(mean_score(own["score"].to_numpy(dtype=float)))
            else:
                truth, predicted = own["truth"].to_numpy(str), own["predicted"].to_numpy(str)
                parts.append(macro_f1_score(truth, predicted, self.context["classes"]))
        return mean_score_of(parts, kinds)

    @property
    def groups(self) -> np.ndarray:
        """Each row's group, in the order of the score's items."""
        return self.rows["group"].to_numpy(str)

    def differs(self, other: ValidationScores) -> str | None:
        """Why the two cannot be compared; None where they can."""
        if self.measure != other.measure:
            return f"it was scored by {other.measure}, not by {self.measure}"
        for name in self.context:
            if self.context[name] != other.context.get(name):
                return f"it was made for another {name}"
        keys = ["modality", "clip_id", *(["truth"] if "truth" in self.rows else [])]
        ours, theirs = (scores.rows[keys].to_numpy(str) for scores in (self, other))
        if ours.shape != theirs.shape or (ours != theirs).any():
            return "it was scored on other validation rows"
        return None

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "rows": self.rows.to_dict("list")}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ValidationScores:
        """The scores that `as_dict` returned as `value`."""
        return cls(value["measure"], value["context"], pd.DataFrame(value["rows"]))


def translation_scores(
    projection: Projection, data: TrainingData, dataset: str, params: RetrieveParams
) -> ValidationScores:
    """NDCG of every query among the validation rows of the translation subset."""
    scores = retrieve_rows(projection, data.valid, params.top_k, params.chunk)
    queries = {"audio": scores.audio_queries, "image": scores.image_queries}
    rows = [
        data.valid[m].clips[["clip_id", "group"]].assign(modality=m, score=queries[m])
        for m in MODALITIES
    ]
    # embeddings of other encoders go into another space, which is no rival
    context = {"dataset": dataset, "pairing": data.pairing, "pair": data.pair}
    measure = f"NDCG@{params.top_k}"
    return ValidationScores(measure, context, pd.concat(rows, ignore_index=True))


def classifier_scores(
    classifier: ModalityAgnosticClassifier, valid: Mapping[Modality, Rows], info: DatasetInfo
) -> ValidationScores:
    """The classifier's answers to the validation rows of both modalities."""
    rows = [
        each.clips[["clip_id", "group"]].assign(
            modality=modality,
            truth=each.clips["instrument"],
            predicted=classifier.forest.predict(
                classifier.projection.project(modality, each.matrix)
            ),
        )
        for modality, each in valid.items()
    ]
    context = {"dataset": info.name, "pairing": info.pairing, "classes": list(info.classes)}
    return ValidationScores("macro F1", context, pd.concat(rows, ignore_index=True))


@dataclass(frozen=True)
class Decision:
    """Whether the new model becomes champion, and why."""

    moves: bool
    reason: str
    gain: Gain | None = None

    def tags(self) -> dict[str, str]:
        """For the registered version."""
        tags = {"champion_decision": f"{'champion' if self.moves else 'kept out'}: {self.reason}"}
        if self.gain is not None:
            tags["champion_gain"] = f"{self.gain.value:.6f}"
            if self.gain.interval is not None:
                low, high = self.gain.interval
                tags["champion_gain_interval"] = f"{low:.6f} {high:.6f}"
        return tags


def decide(
    new: ValidationScores | None, old: ValidationScores | None, exists: bool = True
) -> Decision:
    """A new model replaces the champion where there is none (`exists` is false), where the two
    cannot be compared, and where it is better by more than the noise."""
    if not exists:
        return Decision(True, "there was no champion")
    if new is None or old is None:
        return Decision(True, "one of them has no validation scores")
    if reason := new.differs(old):
        return Decision(True, f"the champion cannot be compared: {reason}")
    measured = gain(new.score, old.score, new.groups)
    if measured.beats():
        return Decision(True, f"better by more than the noise ({measured})", measured)
    return Decision(False, f"not better by more than the noise ({measured})", measured)
