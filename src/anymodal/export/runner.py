"""Running an export with onnxruntime: neither PyTorch nor scikit-learn is loaded.

What is taken apart, prepared and put together again around the models is the classifier's own
(`anymodal.items`, `anymodal.onnx.preparation`, `anymodal.answering`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal.answering import Predicting, answer, gathered
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError
from anymodal.items import Moments
from anymodal.onnx.manifest import FILE, Manifest, ModelFile
from anymodal.onnx.preparation import prepared
from anymodal.prediction import Prediction

if TYPE_CHECKING:
    import onnxruntime

_ROWS = 16
"""Rows that go through a model at once: bounds memory."""


@dataclass(frozen=True)
class Outputs:
    """What a model gives of its rows."""

    probabilities: np.ndarray
    """Calibrated, float64 (rows, classes)."""
    votes: np.ndarray
    """Shares of the forest's trees, float64 (rows, classes)."""
    novelty: np.ndarray
    """As a multiple of the threshold, float64 (rows,)."""
    joint: np.ndarray
    """float32 (rows, dim)."""


class OnnxClassifier(Predicting):
    """A classifier that `anymodal.onnx.export` wrote. The models are loaded when they are used.

    `classes_`, `predict` and `predict_proba` are those of
    `anymodal.model.ModalityAgnosticClassifier`, with the same items and the same answers; the last
    two raise `AnymodalError` where the export has no model for a modality of an item.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.threads = threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    @classmethod
    def load(cls, folder: str | Path, threads: int | None = None) -> OnnxClassifier:
        """Open an export.

        Parameters
        ----------
        folder: what `anymodal export` wrote.
        threads: processor threads of one model; None: what onnxruntime chooses.

        Raises `AnymodalError` where there is none, it is of another format, or files are missing.
        """
        folder = Path(folder)
        if threads is not None and threads < 1:
            raise AnymodalError(f"at least one thread must run, not {threads}")
        manifest = Manifest.read(folder)
        missing = [m.file for m in manifest.models.values() if not (folder / m.file).is_file()]
        if missing:
            raise AnymodalError(f"{folder} lacks {', '.join(missing)}; export again")
        return cls(folder, manifest, threads)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.manifest.classes

    @property
    def sample_rate(self) -> int:
        """Hz of the sounds that the model takes."""
        return self.manifest.sample_rate

    def predict_moments(self, items: Sequence[Moments]) -> list[Prediction]:
        """`predict` for items that `anymodal.items.take_apart` took apart at `sample_rate`."""
        votes: dict[Modality, np.ndarray] = {}
        novelties: dict[Modality, np.ndarray] = {}
        places: list[dict[Modality, dict[int, int]]] = [{} for _ in items]
        for modality in MODALITIES:
            parts, where = gathered(items, modality)
            if not parts:
                continue
            seen = self.run(modality, np.concatenate([self.prepare(modality, p) for p in parts]))
            # a moment lasts a second, so it is one window
            votes[modality], novelties[modality] = seen.votes, seen.novelty
            for number, own in enumerate(where):
                if own:
                    places[number][modality] = own
        return [
            answer(item, own, votes, novelties, self.manifest.judge, self.classes)
            for item, own in zip(items, places, strict=True)
        ]

    def prepare(self, modality: Modality, item: np.ndarray) -> np.ndarray:
        """What the modality's model sees of an item, (windows, …): one of a picture, one of up to a
        second of sound, more of a longer one.

        `item` is float32 (samples,) at `sample_rate`, or uint8 (height, width, 3).
        """
        model = self._model(modality)
        if model.preparation is None:
            raise AnymodalError(
                f"{self.manifest.encoders[modality]['name']} prepares its items in a way of its "
                "own: prepare them with it, and give the result to `run`"
            )
        return prepared(item, model.preparation)

    def run(self, modality: Modality, rows: np.ndarray) -> Outputs:
        """Run the model of a modality on what `prepare` gave, stacked."""
        return self._run(modality, rows)

    def run_head(self, modality: Modality, embeddings: np.ndarray) -> Outputs:
        """Run the head of a modality on the encoder's embeddings, float32 (rows, dim)."""
        return self._run(f"{modality}_head", embeddings)

    def _run(self, name: str, rows: np.ndarray) -> Outputs:
        model = self._model(name)
        if not isinstance(rows, np.ndarray) or rows.shape[1:] != model.shape or rows.ndim < 2:
            shape = ", ".join(str(n) for n in ("n", *model.shape))
            raise AnymodalError(
                f"{model.file} takes {model.dtype} ({shape}), not "
                f"{getattr(rows, 'dtype', type(rows).__name__)} of shape {np.shape(rows)}"
            )
        if rows.dtype != model.dtype:
            raise AnymodalError(f"{model.file} takes {model.dtype}, not {rows.dtype}")
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise AnymodalError(f"{model.file} takes finite numbers only")
        if not len(rows):
            dim = self._output_size(name, "joint")
            none = np.empty((0, len(self.classes)))
            return Outputs(none, none.copy(), np.empty(0), np.empty((0, dim), np.float32))
        names = ["probabilities", "votes", "novelty", "joint"]
        session = self._session(name)
        parts: list[list[Any]] = [
            session.run(names, {model.input: rows[at : at + _ROWS]})
            for at in range(0, len(rows), _ROWS)
        ]
        return Outputs(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _output_size(self, name: str, output: str) -> int:
        return int(next(o.shape[1] for o in self._session(name).get_outputs() if o.name == output))

    def _model(self, name: str) -> ModelFile:
        found = self.manifest.models.get(name)
        if found is not None:
            return found
        if name in MODALITIES:
            reason = self.manifest.left_out.get(name, "")
            raise AnymodalError(
                f"this export has only the head of {name}{f' ({reason})' if reason else ''}: make "
                f"embeddings with {self.manifest.encoders[name]['name']} and give them to run_head"
            )
        raise AnymodalError(f"this export has no {name}; it has {', '.join(self.manifest.models)}")

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        if name not in self._sessions:
            try:
                import onnxruntime
            except ModuleNotFoundError as error:
                raise AnymodalError(
                    "running an export needs onnxruntime: pip install onnxruntime"
                ) from error
            options = onnxruntime.SessionOptions()
            if self.threads is not None:
                options.intra_op_num_threads = self.threads
            path = self.folder / self._model(name).file
            try:
                self._sessions[name] = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            # onnxruntime has a class of its own for each reason, without a common one
            except Exception as error:
                reason = str(error).strip().partition("\n")[0]
                raise AnymodalError(
                    f"{path} of {self.folder / FILE} cannot be loaded ({reason}); export again"
                ) from error
        return self._sessions[name]
