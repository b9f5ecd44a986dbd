"""The artifacts of the earlier stages as the page reads them: fields that it does not know are
ignored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from anymodal.structure import Structure

Pairing = Literal["clip", "class"]


class Record(BaseModel):
    """A frozen piece of an artifact."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Dataset(Record):
    """`dataset.json`."""

    name: str
    pairing: Pairing
    source: str = ""
    classes: tuple[str, ...]
    left_out: dict[str, str] = {}
    rows: dict[str, int] = {}
    groups: int | None = None
    skipped: tuple[Any, ...] = ()
    account: tuple[dict[str, Any], ...] = ()


class Epoch(Record):
    """Losses of one epoch; null or NaN where training diverged."""

    train_loss: float | None = None
    valid_loss: float | None = None


class Training(Record):
    """One training of a pair's translation."""

    seed: int
    history: tuple[Epoch, ...]


class Trainings(Record):
    """`projections/<pair>/training.json`."""

    pair: str
    pairs_per_epoch: int | None = None
    seeds: tuple[Training, ...]


class Ways(Record):
    """NDCG in both directions."""

    audio_to_image: float
    image_to_audio: float

    @property
    def mean(self) -> float:
        """Mean of the two directions."""
        return (self.audio_to_image + self.image_to_audio) / 2


class Untranslated(Ways):
    """Retrieval in a space that two encoders share without translation."""

    audio: str
    image: str


class Retrieval(Record):
    """`retrieval/<pair>.json`."""

    pair: str
    dataset: str
    pairing: Pairing
    top_k: int
    n_audio: int
    n_image: int
    translation: tuple[Ways, ...] = Field(min_length=1)
    pca: Ways
    random: Ways
    untranslated: Untranslated | None = None


class Ranked(Ways):
    """A pair's place in the ranking: means over seeds, and the spread of their mean."""

    pair: str
    std: float = 0.0


class Selection(Record):
    """`selection.json`."""

    pair: str
    rule: str = ""
    ranking: tuple[Ranked, ...] = Field(min_length=1)


class SummaryRow(Record):
    """One row of `anymodal.classification.summarise`."""

    system: str
    regime: str
    target: str
    mean: float
    std: float = 0.0
    min: float
    max: float
    seeds: int
    train_rows: int
    train_rows_of_target: int = 0
    test_rows: int
    classes: int
    chance: float


class OutcomeRow(Record):
    """Macro F1 of one seed."""

    system: str
    regime: str
    target: str
    seed: int
    macro_f1: float


class IntervalRow(Record):
    """95 % interval of one system's score over test recordings; null where undefined."""

    system: str
    regime: str
    target: str
    low: float | None = None
    high: float | None = None
    groups: int


class Comparison(Record):
    """Macro F1 of one system less that of another, on the same test clips."""

    target: str
    first: tuple[str, str]
    """System and regime."""
    second: tuple[str, str]
    difference: float
    low: float | None = None
    high: float | None = None
    p_value: float
    p_holm: float
    """Adjusted over all comparisons."""


class Share(Record):
    """MMT zero-shot as a share of the best system that saw labels of the target."""

    share: float | None
    low: float | None = None
    high: float | None = None
    best_system: str


class Results(Record):
    """`classification/results.json`."""

    dataset: str
    pairing: Pairing
    pair: str
    classes: tuple[str, ...]
    trees: int
    max_depth: int | None = None
    summary: tuple[SummaryRow, ...] = Field(min_length=1)
    outcomes: tuple[OutcomeRow, ...] = ()
    intervals: tuple[IntervalRow, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    zero_shot_share: dict[str, Share] = {}


class Curve(Record):
    """`mixing/curve.json`, without its points: those are in `curve.parquet`."""

    dataset: str
    pairing: Pairing
    pair: str
    train_rows: dict[str, int]


class CorrelationRow(Record):
    """How a class's F1 goes with how often the translation saw it."""

    target: str
    regime: str
    counts_of: str
    method: str
    n: int
    value: float | None = None
    p_value: float | None = None
    reason: str | None = None


class Spaces(Record):
    """`structure/structure.json`."""

    dataset: str
    pairing: Pairing
    pair: str
    classes: tuple[str, ...]
    test_rows: dict[str, int]
    pca: dict[str, Any]
    """As `Structure.from_json` takes it."""
    translated: tuple[dict[str, Any], ...] = Field(min_length=1)
    """The same of each seed."""
    label_counts: dict[str, tuple[int, ...]]
    correlations: tuple[CorrelationRow, ...] = ()

    @property
    def reduced(self) -> Structure:
        """The structure of the PCA space."""
        return Structure.from_json(self.pca)

    @property
    def trained(self) -> list[Structure]:
        """The structure of each seed's translated space."""
        kept = ({k: v for k, v in one.items() if k != "seed"} for one in self.translated)
        return [Structure.from_json(one) for one in kept]


class AcrossScore(Record):
    """Macro F1 of one system under one protocol (`anymodal.across`)."""

    protocol: str
    system: str
    regime: str
    mean: float
    std: float = 0.0
    low: float | None = None
    high: float | None = None


class AcrossDifference(Record):
    """Macro F1 under one protocol less that under another, on the same rows."""

    system: str
    regime: str
    first: str
    second: str
    difference: float
    low: float | None = None
    high: float | None = None
    p_holm: float
    """Adjusted over all differences of the target."""


class Accuracy(Record):
    """Share of right answers to one source's rows."""

    protocol: str
    system: str
    regime: str
    value: float


class SourceRow(Record):
    """One source that was tested."""

    source: str
    rows: int
    classes: int
    accuracy: tuple[Accuracy, ...] = ()


class LeftOutRow(Record):
    """Rows of a class that could not be tested under every protocol."""

    instrument: str
    rows: int
    reason: str


class AcrossTarget(Record):
    """One target modality under every protocol; protocols that are not measured have a reason."""

    missing: dict[str, str] = {}
    test_rows: int = 0
    groups: int = 0
    sources: int = 0
    classes: tuple[str, ...] = ()
    chance: float | None = None
    left_out: tuple[LeftOutRow, ...] = ()
    scores: tuple[AcrossScore, ...] = ()
    by_source: tuple[SourceRow, ...] = ()
    differences: tuple[AcrossDifference, ...] = ()

    def score(self, protocol: str, system: str, regime: str) -> AcrossScore | None:
        """One score, where it was measured."""
        wanted = (protocol, system, regime)
        return next(
            (one for one in self.scores if (one.protocol, one.system, one.regime) == wanted), None
        )

    @property
    def measured(self) -> bool:
        """Whether there are scores across sources."""
        return any(one.protocol == "across" for one in self.scores)


class Across(Record):
    """`across/across.json`."""

    dataset: str
    pairing: Pairing
    pair: str
    seeds: int
    targets: dict[str, AcrossTarget]


class ReliabilityPoint(Record):
    """Rows of similar confidence."""

    confidence: float
    accuracy: float
    rows: int


class JudgedModality(Record):
    """Calibration and abstaining on the test rows of one modality."""

    test_rows: int
    temperature: float
    ece: float | None
    ece_of_votes: float | None
    reliability: tuple[ReliabilityPoint, ...]
    reliability_of_votes: tuple[ReliabilityPoint, ...]
    threshold: float | None
    known: float | None
    accuracy_of_known: float | None


class JudgedFusion(Record):
    """Both modalities together beside each alone, on the same pairs."""

    pairing: Pairing
    pairs: int
    audio: float | None
    image: float | None
    both: float | None
    better: str
    difference: float | None
    interval: tuple[float, float] | None


class CalledUnknown(Record):
    """How many of a kind that is no instrument were called unknown."""

    items: int
    unknown: float


class Judged(Record):
    """`classification/judge.json`."""

    dataset: str
    pairing: Pairing
    pair: str
    keep: float
    modalities: dict[str, JudgedModality]
    fusion: JudgedFusion
    unknown: dict[str, CalledUnknown]
