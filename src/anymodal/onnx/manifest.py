"""onnx.json: what an export holds, for whatever program runs it.

Everything there that a program needs to know is a number or a name; `in_words` says the same to
whoever writes that program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError
from anymodal.fusion import Weights
from anymodal.items import BLANK_CONTRAST, SILENT_DBFS
from anymodal.judge import LEAST_KNOWN, Judge

FORMAT = 1
FILE = "onnx.json"

OUTPUTS = {
    "probabilities": {
        "dtype": "float64",
        "shape": ["n", "classes"],
        "in_words": "Calibrated probabilities of this row alone; the order is that of `classes`.",
    },
    "votes": {
        "dtype": "float64",
        "shape": ["n", "classes"],
        "in_words": "Share of the forest's trees; what is to be averaged over the seconds of a "
        "sound before it is calibrated.",
    },
    "novelty": {
        "dtype": "float64",
        "shape": ["n"],
        "in_words": "How unlike the training rows, as a multiple of the threshold: above 1 the "
        "row is like nothing known. 0 where no threshold could be fitted.",
    },
    "joint": {
        "dtype": "float32",
        "shape": ["n", "dim"],
        "in_words": "The vector in the space that sounds and pictures share.",
    },
}
RULE = (
    "A moment is a second of sound, a picture, or both of a film. Its sound is blank below "
    "`silent_dbfs` (root mean square, decibels of full scale), its picture where the mean of red, "
    "green and blue has a standard deviation below `blank_contrast` over the pixels. A part is "
    "clear where it is not blank and its novelty is up to 1. Of an item: average the votes of a "
    "modality's clear parts, or of all where none is. Then p = max(votes, floor) ** (1 / "
    "temperature), and the modality's probabilities are p / sum(p). Where both modalities have a "
    "clear part, or neither: p = the product over both of max(probabilities, 1e-12) ** weight, and "
    "the answer is p / sum(p); otherwise it is that of the one. It is `unknown` unless, of the "
    "moments that are not blank throughout, at least the share `least_known` has a clear part."
)


@dataclass(frozen=True)
class ModelFile:
    """One ONNX model of an export."""

    file: str
    input: str
    """Name of its only input."""
    dtype: str
    shape: tuple[int, ...]
    """Of one row."""
    range: tuple[float, float] | None = None
    """Smallest and largest value that the input is meant to have; None: any."""
    sample_rate: int | None = None
    """Hz; None where the input is no sound."""
    preparation: Mapping[str, Any] | None = None
    """See `anymodal.onnx.preparation`; None where the input is an embedding, or the encoder's
    preparation is one of its own."""

    def as_dict(self) -> dict[str, Any]:
        """The model as JSON values."""
        return {
            "file": self.file,
            "input": {
                "name": self.input,
                "dtype": self.dtype,
                "shape": ["n", *self.shape],
                "range": None if self.range is None else list(self.range),
                "sample_rate": self.sample_rate,
            },
            "preparation": None if self.preparation is None else dict(self.preparation),
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> ModelFile:
        """From what `as_dict` gave."""
        given = told["input"]
        span = given["range"]
        return cls(
            str(told["file"]),
            str(given["name"]),
            str(given["dtype"]),
            tuple(int(n) for n in given["shape"][1:]),
            None if span is None else (float(span[0]), float(span[1])),
            None if given["sample_rate"] is None else int(given["sample_rate"]),
            told["preparation"],
        )


@dataclass(frozen=True)
class Manifest:
    """The content of onnx.json."""

    classes: tuple[str, ...]
    sample_rate: int
    """Hz of the audio encoder."""
    models: Mapping[str, ModelFile]
    """By name: a modality, or a modality with `_head` appended."""
    judge: Judge
    """Without its novelty, which is in the graphs."""
    encoders: Mapping[Modality, Mapping[str, Any]]
    """Name and version of each."""
    left_out: Mapping[Modality, str] = field(default_factory=dict)
    """Modalities of which there is the head alone, and why."""
    opsets: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the classifier was trained and tested on."""
    parity: Mapping[str, Any] = field(default_factory=dict)
    """How far the answers are from PyTorch's and scikit-learn's, see `anymodal.onnx.parity`."""
    anymodal: str = ""
    """Version that wrote it."""

    def as_dict(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        return {
            "format": FORMAT,
            "anymodal": self.anymodal,
            "classes": list(self.classes),
            "sample_rate": self.sample_rate,
            "models": {name: one.as_dict() for name, one in self.models.items()},
            "outputs": OUTPUTS,
            "left_out": dict(self.left_out),
            "judge": {
                "temperatures": dict(self.judge.temperatures),
                "floor": self.judge.floor,
                "weights": self.judge.weights._asdict(),
                "least_known": LEAST_KNOWN,
                "silent_dbfs": SILENT_DBFS,
                "blank_contrast": BLANK_CONTRAST,
                "in_words": RULE,
            },
            "encoders": {name: dict(one) for name, one in self.encoders.items()},
            "opsets": dict(self.opsets),
            "parity": dict(self.parity),
            "facts": dict(self.facts),
        }

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read the onnx.json of a folder; `AnymodalError` where it cannot be used."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise AnymodalError(f"no export in {folder}; write one with `anymodal export {folder}`")
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise AnymodalError(
                    f"{path} has format {told['format']!r}, this anymodal reads {FORMAT}: "
                    "export again"
                )
            judge = told["judge"]
            return cls(
                classes=tuple(str(name) for name in told["classes"]),
                sample_rate=int(told["sample_rate"]),
                models={name: ModelFile.of(one) for name, one in told["models"].items()},
                judge=Judge(
                    {m: float(judge["temperatures"][m]) for m in MODALITIES},
                    float(judge["floor"]),
                    Weights(**{n: float(v) for n, v in judge["weights"].items()}),
                ),
                encoders=told["encoders"],
                left_out=told["left_out"],
                opsets=told["opsets"],
                facts=told["facts"],
                parity=told["parity"],
                anymodal=str(told["anymodal"]),
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise AnymodalError(f"{path} cannot be read; export again") from error
