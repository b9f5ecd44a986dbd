"""params.yaml as frozen models: every number that a result depends on.

The sections are named for the stages that read them. Every field's docstring gives its unit and the
paper's value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from anymodal.config.section import Positive, Section, Share
from anymodal.config.tuning import TuneParams
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import BLANK_CONTRAST, SILENT_DBFS


class DatasetParams(Section):
    """Where the clips come from, and how they are divided."""

    source: Literal["pack", "folder", "audioset"] = "pack"
    """Kind of source: the bundled feature pack, a folder of media, or what `anymodal audioset`
    fetched (its subsets are drawn by the section `audioset`)."""
    path: str = "data"
    """Folder of the source, relative to the project."""
    min_groups: Annotated[int, Field(ge=6)] = 12
    """Fewest groups (recordings, distinct images) of a class in every modality. Rarer classes take
    no part: balance would cut all classes down to their size (paper: none so rare)."""
    windows: Positive = 3
    """One-second windows per recording, if it is long enough (paper: 1)."""
    translation: Annotated[float, Field(gt=0)] = 0.65
    """Size of the translation subset: share of the groups if below 1, else number of clips
    (paper: 130,000)."""
    retrieval: Annotated[float, Field(gt=0)] = 0.05
    """Size of the retrieval subset, likewise (paper: 10,000)."""
    translation_valid: Share = 0.15
    """Share of the translation subset held out for early stopping (paper's code: 0.1)."""
    classification_valid: Share = 0.2
    """Share of the classification subset held out for tuning and thresholds
    (paper: none stated)."""
    classification_test: Share = 0.45
    """Share of the classification subset that tests (paper: 0.1)."""
    per_class: Annotated[int, Field(ge=3)] | None = None
    """Rows per class and modality in the classification subset; null: the number of the rarest
    class (paper: 1,000)."""

    @model_validator(mode="after")
    def _some_left_to_classify(self) -> DatasetParams:
        if self.classification_valid + self.classification_test >= 1:
            raise ValueError("classification_valid and classification_test leave nothing to train")
        if sum(share for share in (self.translation, self.retrieval) if share < 1) >= 1:
            raise ValueError("translation and retrieval leave nothing to classification")
        return self


class AudioSetParams(Section):
    """What is drawn from AudioSet's segment lists (paper, section 3.1 and table 2), and how its
    media are fetched."""

    translation: Annotated[int, Field(ge=2)] = 130_000
    """Videos of the translation subset (paper: 130,000)."""
    retrieval: Positive = 10_000
    """Videos of the retrieval subset (paper: 10,000)."""
    per_class: Annotated[int, Field(ge=3)] = 1_000
    """Videos of each of the 18 classes in the classification subset (paper: 1,000)."""
    translation_valid: Share = 0.1
    """Share of the translation subset held out for early stopping (paper's code: 0.1)."""
    classification_valid: Share = 0.1
    """Share of each class held out for tuning and thresholds (paper: none stated)."""
    classification_test: Share = 0.1
    """Share of each class that tests (paper: 0.1)."""
    reserve: Annotated[float, Field(ge=0)] = 0.4
    """Further videos that replace dead ones, as a share of the size of each subset and class: 0.4
    makes up for 28 % (paper: not stated; 15 to 20 % were gone within a few years)."""

    # how media are fetched; the paper states none of it
    height: Positive = 360
    """Most pixels of the short side of the video stream, if there is a choice."""
    short_side: Positive = 256
    """Pixels of a stored frame's short side; larger frames are reduced to it."""
    jpeg_quality: Annotated[int, Field(ge=1, le=95)] = 92
    """Quality of a stored frame (1 to 95)."""
    shard_mb: Annotated[float, Field(gt=0)] = 1000.0
    """Largest size of a shard, in millions of bytes; 1,000 hold about 9,000 clips."""
    parallel: Positive = 8
    """Clips fetched at the same time."""
    tries: Positive = 4
    """Attempts per clip in one run."""
    give_up: Positive = 12
    """Failed attempts over all runs after which a clip counts as dead."""
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    """Longest time of one attempt, in seconds."""
    stall_s: Annotated[float, Field(gt=0)] = 20.0
    """Seconds without data after which an attempt has failed."""
    backoff_s: Annotated[float, Field(ge=0)] = 2.0
    """Seconds before the second attempt; doubled for each further one, times 0.5 to 1.5."""
    throttle_s: Annotated[float, Field(ge=0)] = 60.0
    """The same where the server asks to slow down (429); all clips wait for it."""
    backoff_max_s: Annotated[float, Field(ge=0)] = 900.0
    """Longest pause in seconds."""
    outage: Positive = 25
    """Clips that may fail in a row, for temporary reasons, before the run stops."""

    @model_validator(mode="after")
    def _some_left_to_train(self) -> AudioSetParams:
        if self.classification_valid + self.classification_test >= 1:
            raise ValueError("classification_valid and classification_test leave nothing to train")
        return self


class CheckParams(Section):
    """What the data must satisfy before anything is trained."""

    balance_tolerance: Annotated[float, Field(ge=0)] = 0.1
    """Largest relative deviation of a class from the mean class size in each split of the
    classification subset (paper: balanced, 0)."""
    skew_warning: Annotated[float, Field(gt=1)] = 10.0
    """Ratio of the largest to the smallest class of the translation subset above which there is a
    warning (paper's Fig. 6: about 60)."""
    min_per_class: Positive = 3
    """Fewest rows per class and modality in each split of the classification subset."""
    silence_dbfs: Annotated[float, Field(le=0)] = SILENT_DBFS
    """RMS level of a window, in dB of full scale, below which it counts as silent; a warning
    (paper: not stated, as for the next two)."""
    blank_contrast: Annotated[float, Field(ge=0)] = BLANK_CONTRAST
    """Standard deviation of an image's brightness (0 to 255) below which it counts as blank; a
    warning."""
    frame_side: Positive = 256
    """Pixels of an image's shorter side below which it counts as tiny; a warning."""


class EmbedParams(Section):
    """Which encoders run, and how; only their names and the precision change the result."""

    audio: tuple[str, ...] = ("musicnn_mtt", "musicnn_msd")
    """Audio encoders (paper: OpenL3, VGGish, YAMNet)."""
    image: tuple[str, ...] = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
    """Image encoders (paper: OpenL3, VGG16, ResNet50)."""
    batch_size: Positive = 32
    """Items per forward pass."""
    workers: Positive = 2
    """Threads that decode media while the network computes."""
    chunk: Positive = 256
    """Items between two saves: the most that a killed run loses."""
    engine: Literal["local", "ray"] = "local"
    """This process, or Ray's processes on this machine or the cluster that the environment's
    RAY_ADDRESS names (`pip install "anymodal[ray]"`)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks run; auto: the fastest available."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type that the networks compute in; a shorter one is faster on a GPU, and its error is
    measured and printed (paper: not stated). Embeddings are float32 in any case."""
    weights_dir: Path | None = None
    """Folder with weights, relative to the project; the environment's ANYMODAL_WEIGHTS_DIR wins.
    null: the publisher's packages, the cache, a download."""

    @property
    def encoders(self) -> tuple[str, ...]:
        """All encoders, audio first."""
        return self.audio + self.image

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every (audio, image) pair of encoders."""
        return tuple((audio, image) for audio in self.audio for image in self.image)


class TranslateParams(Section):
    """The translation: two MLPs into one space (paper, sections 2.2 and 3.2)."""

    hidden: Positive = 256
    """Width of the hidden layer (paper: 256)."""
    dim: Positive = 128
    """Dimensions of the joint space, and of PCA (paper: 128)."""
    depth: Annotated[int, Field(ge=1, le=8)] = 2
    """Linear layers of a branch; all but the last are followed by BatchNorm and activation, 1 is a
    linear map (paper: 2)."""
    activation: Literal["elu", "relu", "gelu"] = "elu"
    """Activation of the hidden layers (paper's code: ELU)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of hidden values dropped in training, after each activation (paper: none)."""
    loss: Literal["hinge", "infonce"] = "hinge"
    """`hinge`, the paper's contrastive loss, or `infonce`, a softmax over a batch."""
    margin: Annotated[float, Field(ge=0)] = 1.0
    """Margin of the hinge on the cosine similarity; InfoNCE has none (paper: 1.0)."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Temperature that InfoNCE divides cosines by; the hinge has none (paper: no softmax; 0.07 is
    CLIP's start)."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Adam's step size (paper: 0.001)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay (AdamW) of the layers' matrices, not of biases and BatchNorm
    (paper: none)."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Pairs per step (paper: 4,096 of 130,000; the bundled pack has about 1,000 per epoch)."""
    patience: Positive = 10
    """Epochs without a better validation loss before training stops (paper: 5)."""
    max_epochs: Positive = 200
    """Most epochs (paper's code: 1,000)."""
    same_class_negatives: bool = False
    """Whether another row of the same class is a negative in class-paired data. The paper's
    clip-paired training knows no classes and takes every other row as a negative."""
    seeds: Positive = 5
    """Independent trainings per pair of encoders (paper: not stated)."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto: CUDA, else MPS, else CPU."""


class RetrieveParams(Section):
    """Cross-modal retrieval, the pretext that chooses the encoders (sections 3.3 and 4.1)."""

    top_k: Positive = 30
    """Answers per query that the score counts (paper: 30)."""
    chunk: Positive = 1024
    """Queries scored at a time; bounds memory, changes no result."""
    untranslated: tuple[str, ...] = ()
    """An audio and an image encoder that were trained into one space, whose retrieval without
    translation is a baseline; or none (paper: `[openl3_audio_512, openl3_image_512]`)."""

    @field_validator("untranslated")
    @classmethod
    def _two(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) not in (0, 2):
            raise ValueError("names an audio and an image encoder, or none")
        return names


class ClassifyParams(Section):
    """Instrument classifiers on the projected embeddings (sections 2.3 and 3.2)."""

    pair: str = "best"
    """`best` for the pair that `select` chose, or `<audio encoder>+<image encoder>`."""
    trees: Positive = 100
    """Trees per forest (paper: 100)."""
    max_depth: Positive | None = 32
    """Largest depth of a tree (paper: 32)."""
    min_leaf: Positive = 1
    """Fewest training rows in a leaf (paper: not stated; scikit-learn's default)."""
    max_features: Literal["sqrt"] | Annotated[float, Field(gt=0, le=1)] = "sqrt"
    """Features that a split chooses among: `sqrt` of their number, or a share of them (paper: not
    stated; scikit-learn's default)."""
    seeds: Positive = 5
    """Forests per system, each on its own training of the translation (paper: not stated)."""
    bootstrap: Positive = 5000
    """Bootstrap resamples of the test recordings, for intervals (paper: none)."""
    ood_keep_rate: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of the validation rows that must not be called unknown (paper: no unknown)."""
    subspace: Positive = 128
    """Most principal dimensions of the training embeddings; novelty is what lies outside them."""
    reference_rows: Annotated[int, Field(ge=0)] = 5000
    """Most training rows per modality that the classifier keeps, to show an item's neighbours."""


class MixingParams(Section):
    """The mixing curve: what labels of the target modality add (section 4.2, Fig. 3)."""

    points: tuple[Annotated[int, Field(ge=0)], ...] = (0, 10, 20, 40, 80, 160)
    """Rows of the target modality mixed in; the last point is always all of them (paper: 0, 100,
    200, 400, 800, 1600, 2000, 4000, 8000, 12000, 16000)."""
    draws: Positive = 10
    """Random draws per point, each with its own forest (paper: not stated)."""
    workers: int = -1
    """Forests that grow at once, one thread each; -1: one per core. Changes no result."""
    library: Literal["scikit-learn", "scikit-learn-intelex"] = "scikit-learn"
    """Library of the forests. Intel's are different forests, as accurate on average, in a fraction
    of the time: for curves of thousands of rows."""


class CrossSourceParams(Section):
    """Tests within and across sources, by cross-validation of the classification subset (paper:
    none; its clips come from as many sources as there are videos)."""

    enabled: bool = True
    """Whether it is measured: it trains two translations per fold and seed."""
    folds: Annotated[int, Field(ge=2)] = 3
    """Folds; across sources at most as many as sources."""
    seeds: Positive = 2
    """Trainings per fold and protocol; at most `translate.seeds`, whose translations the tests
    within sources use."""


class TrackingParams(Section):
    """Where runs and models are recorded."""

    uri: str = "sqlite:///mlflow.db"
    """MLflow tracking and registry store; the environment's MLFLOW_TRACKING_URI wins."""
    experiment: str = "anymodal"
    """MLflow experiment; the environment's MLFLOW_EXPERIMENT_NAME wins."""
    register_models: bool = True
    """Whether translation and classifier are registered as model versions."""


class Params(Section):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed that every random choice derives from."""
    dataset: DatasetParams = DatasetParams()
    audioset: AudioSetParams = AudioSetParams()
    check: CheckParams = CheckParams()
    embed: EmbedParams = EmbedParams()
    translate: TranslateParams = TranslateParams()
    retrieve: RetrieveParams = RetrieveParams()
    classify: ClassifyParams = ClassifyParams()
    mixing: MixingParams = MixingParams()
    cross_source: CrossSourceParams = CrossSourceParams()
    tune: TuneParams = TuneParams()
    tracking: TrackingParams = TrackingParams()

    @property
    def encoders(self) -> tuple[str, ...]:
        """Every encoder whose embeddings a stage needs, those of pairs first."""
        return tuple(dict.fromkeys(self.embed.encoders + self.retrieve.untranslated))

    @model_validator(mode="after")
    def _searchable(self) -> Params:
        for space, section in (
            (self.tune.translation, TranslateParams),
            (self.tune.forest, ClassifyParams),
        ):
            for name, value in space.ends():
                try:
                    section.model_validate({name: value})
                except ValidationError as error:
                    reason = error.errors()[0]["msg"]
                    raise ValueError(f"tune searches {name} at {value!r}: {reason}") from error
        return self

    @model_validator(mode="after")
    def _enough_trainings(self) -> Params:
        if self.classify.seeds > self.translate.seeds:
            raise ValueError(
                f"classify.seeds ({self.classify.seeds}) exceeds translate.seeds "
                f"({self.translate.seeds}): each forest needs its own translation"
            )
        return self


_CHANGED = {
    "across": "is now cross_source",
    "classify.keep": "is now classify.ood_keep_rate",
    "classify.neighbours": "is now classify.reference_rows",
    "retrieve.random_draws": "is gone: chance is computed exactly; remove the line",
}
"""Names of earlier versions."""


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read params.yaml; raises `AnymodalError`, which names the field, for anything invalid."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AnymodalError(
            f"no parameters at {path}: run inside an anymodal project, or give --params"
        ) from error
    return parse_params(text, path)


def parse_params(text: str, path: str | Path = "params.yaml") -> Params:
    """The parameters that `text`, the content of `path`, holds."""
    try:
        content: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AnymodalError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is not None and not isinstance(content, dict):
        raise AnymodalError(f"{path} must hold named sections, not {type(content).__name__}")
    try:
        return Params.model_validate(content or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise AnymodalError(f"{path}: {field}: {_CHANGED.get(field, first['msg'])}") from error
