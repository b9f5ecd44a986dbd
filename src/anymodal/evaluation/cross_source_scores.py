"""Scores, differences and single sources of the protocols of `anymodal.evaluation.cross_source`.

Predictions have the columns protocol, system, regime, seed, clip_id, truth and predicted, of one
target modality; every protocol answers the same clips. Scores are macro F1 of the answers of all
folds together. Intervals and tests resample recordings (`groups` of a clip); sources are too few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from anymodal.core.modality import Modality
from anymodal.core.record import Measured, Record
from anymodal.evaluation.classification import Regime, System
from anymodal.evaluation.cross_source import PROTOCOLS, LeftOut, Protocol
from anymodal.evaluation.forests import macro_f1
from anymodal.evaluation.resampling import DEFAULT, Resampling
from anymodal.evaluation.significance import Groups, adjusted, by_seed, parts, tested

COMPARED: tuple[tuple[Protocol, Protocol], ...] = (
    ("within", "cross_source"),
    ("within", "size_matched"),
    ("size_matched", "cross_source"),
)
"""The whole loss across sources, and its two parts: by fewer rows, and by other sources."""

Key = tuple[Protocol, System, Regime]


class ProtocolScore(Record):
    """Macro F1 of one system under one protocol, over its seeds, with its 95 % interval."""

    protocol: Protocol
    system: System
    regime: Regime
    mean: float
    std: float
    """n − 1; 0 for one seed."""
    min: float
    max: float
    seeds: int
    low: float | None
    high: float | None


class ProtocolDifference(Record):
    """Macro F1 under the first protocol minus that under the second, on the same rows."""

    system: System
    regime: Regime
    first: Protocol
    second: Protocol
    difference: float
    low: float | None
    high: float | None
    p_value: float
    p_holm: float
    """Adjusted over all differences of the target."""


class SourceAccuracy(Record):
    """Share of right answers to the rows of one source, mean over seeds."""

    protocol: Protocol
    system: System
    regime: Regime
    value: float


class SourceScores(Record):
    """One tested source."""

    source: str
    rows: int
    classes: int
    accuracy: tuple[SourceAccuracy, ...]


class FoldSizes(Record):
    """What one fold tests, and what it is trained on."""

    protocol: Protocol
    fold: int
    sources: dict[str, int]
    test_rows: int
    train_rows: dict[Modality, int]
    translation_rows: dict[Modality, int]


class TargetResult(Record):
    """One target modality under every protocol."""

    missing: dict[Protocol, str]
    """Why a protocol is not measured."""
    test_rows: int = 0
    groups: int = 0
    sources: int = 0
    classes: tuple[str, ...] = ()
    chance: float | None = None
    left_out: tuple[LeftOut, ...] = ()
    folds: tuple[FoldSizes, ...] = ()
    scores: tuple[ProtocolScore, ...] = ()
    by_source: tuple[SourceScores, ...] = ()
    differences: tuple[ProtocolDifference, ...] = ()

    def score(self, protocol: Protocol, system: System, regime: Regime) -> ProtocolScore | None:
        """One score, where it was measured."""
        key = (protocol, system, regime)
        return next((s for s in self.scores if (s.protocol, s.system, s.regime) == key), None)

    def difference(
        self, first: Protocol, second: Protocol, system: System, regime: Regime
    ) -> ProtocolDifference | None:
        """One difference, where it was measured."""
        key = (first, second, system, regime)
        return next(
            (d for d in self.differences if (d.first, d.second, d.system, d.regime) == key), None
        )

    @property
    def measured(self) -> bool:
        """Whether there are scores across sources."""
        return any(score.protocol == "cross_source" for score in self.scores)


class CrossSourceResult(Measured):
    """What stage `cross_source` measured."""

    classes: tuple[str, ...]
    seeds: int
    targets: dict[Modality, TargetResult]


def scores(
    predictions: pd.DataFrame, classes: Sequence[str], groups: Groups, how: Resampling = DEFAULT
) -> tuple[ProtocolScore, ...]:
    """The score of every protocol, system and regime."""
    rows = []
    for (protocol, system, regime), own in _in_order(predictions):
        answered = by_seed(own)
        values = pd.Series([macro_f1(answered.truth, seed, classes) for seed in answered.predicted])
        low, high = answered.interval(classes, groups, how) or (None, None)
        rows.append(
            ProtocolScore(
                protocol=protocol,
                system=system,
                regime=regime,
                mean=float(values.mean()),
                std=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
                min=float(values.min()),
                max=float(values.max()),
                seeds=len(values),
                low=low,
                high=high,
            )
        )
    return tuple(rows)


def by_source(predictions: pd.DataFrame, sources: Mapping[str, str]) -> tuple[SourceScores, ...]:
    """The accuracy on the clips of each source, largest first; `sources` maps a clip to its
    source."""
    table = predictions.assign(
        source=predictions["clip_id"].map(sources),
        right=predictions["truth"] == predictions["predicted"],
    )
    rows = []
    for source, own in table.groupby("source", sort=True):
        clips = own.drop_duplicates("clip_id")
        accuracy = tuple(
            SourceAccuracy(protocol=p, system=s, regime=r, value=answers["right"].mean())
            for (p, s, r), answers in _in_order(own)
        )
        classes = int(clips["truth"].nunique())
        rows.append(
            SourceScores(source=str(source), rows=len(clips), classes=classes, accuracy=accuracy)
        )
    return tuple(sorted(rows, key=lambda row: (-row.rows, row.source)))


def differences(
    predictions: pd.DataFrame, classes: Sequence[str], groups: Groups, how: Resampling = DEFAULT
) -> tuple[ProtocolDifference, ...]:
    """For every system and regime the differences of `COMPARED`, p-values adjusted over all of
    them (Holm)."""
    answered = {key: by_seed(rows) for key, rows in _in_order(predictions)}
    pairs: list[tuple[Key, Key]] = [
        ((first, system, regime), (second, system, regime))
        for system, regime in dict.fromkeys(key[1:] for key in answered)
        for first, second in COMPARED
    ]
    tests = list(tested(answered, pairs, classes, groups, how))
    return tuple(
        ProtocolDifference(
            system=system, regime=regime, first=first, second=second, **vars(test), p_holm=p_holm
        )
        for ((first, system, regime), (second, *_), test), p_holm in zip(
            tests, adjusted(tests), strict=True
        )
    )


def _in_order(predictions: pd.DataFrame) -> list[tuple[Key, pd.DataFrame]]:
    """Predictions by protocol, system and regime; protocols as in `PROTOCOLS`."""
    rows = parts(predictions, "protocol", "system", "regime")
    return sorted(rows.items(), key=lambda item: PROTOCOLS.index(item[0][0]))
