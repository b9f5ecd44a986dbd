"""onnx.json: what an export holds, for whatever program runs it; `in_words` is for its author."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from anymodal.classifier.open_set import OpenSetCalibrator
from anymodal.classifier.prediction import LEAST_KNOWN
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.core.record import Record
from anymodal.export.parity import Parity
from anymodal.export.preparation import Preparation
from anymodal.media.segmentation import BLANK_CONTRAST, SILENT_DBFS
from anymodal.projection.artifact import EncoderRef

FILE = "onnx.json"

OUTPUTS = {
    "probabilities": "float64 (n, classes): calibrated probabilities of each row alone, in the "
    "order of `classes`",
    "votes": "float64 (n, classes): shares of the forest's trees, to be averaged over the windows "
    "of an item before they are calibrated",
    "novelty": "float64 (n,): how unlike the training rows, as a multiple of the threshold; above "
    "1 a row is like nothing known; 0 where no threshold could be fitted",
    "joint": "float32 (n, dim): the vector in the joint space of audio and images",
}
RULE = (
    "A window is a second of audio, an image, or both of a video. Its audio is blank below "
    "`silent_dbfs` (root mean square, decibels of full scale), its image where the mean of red, "
    "green and blue has a standard deviation below `blank_contrast` over the pixels. A modality of "
    "a window is clear where it is not blank and its novelty is at most 1. For an item: average "
    "the votes of a modality over its clear windows, or over all where none is clear. Then p = "
    "max(votes, floor) ** (1 / temperature), and the modality's probabilities are p / sum(p). "
    "Where both modalities have a clear window, or neither has: p = the product over both of "
    "max(probabilities, 1e-12) ** weight, and the answer is p / sum(p); otherwise it is that of "
    "the modality that has. It is `unknown` unless at least the share `least_known` of the "
    "windows that are not blank in all modalities is clear in one."
)


class Input(Record):
    """The only input of a model."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    """`n` rows, then the shape of one."""
    range: tuple[float, float] | None = None
    """Smallest and largest value that it is meant to have; None: any."""
    sample_rate: int | None = None
    """Hz, of audio."""


class ModelFile(Record):
    """One ONNX model of an export."""

    file: str
    input: Input
    preparation: Preparation | None = None
    """None for embeddings, and for encoders that prepare items in another way."""


class Combination(OpenSetCalibrator):
    """How votes become probabilities and windows an answer; novelty is in the models."""

    least_known: float = LEAST_KNOWN
    silent_dbfs: float = SILENT_DBFS
    blank_contrast: float = BLANK_CONTRAST
    in_words: str = RULE


class Manifest(Record):
    """The content of onnx.json."""

    format: Literal[2] = 2
    anymodal: str
    """Version that wrote it."""
    classes: tuple[str, ...]
    sample_rate: int
    """Hz of the audio encoder."""
    models: dict[str, ModelFile]
    """By name: a modality, or a modality with `_head` appended."""
    outputs: dict[str, str] = Field(default=OUTPUTS)
    left_out: dict[Modality, str]
    """Modalities that have only a head, and why."""
    calibrator: Combination
    encoders: dict[Modality, EncoderRef]
    opsets: dict[str, int]
    parity: Parity | None = None
    facts: dict[str, Any]
    """What the classifier was trained and tested on."""

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the onnx.json of a folder; `AnymodalError` where it cannot be used."""
        if not (folder / FILE).is_file():
            raise AnymodalError(f"no export in {folder}; write one with `anymodal export {folder}`")
        return cls.read(folder / FILE, f"export {folder}")
