"""Running an export with onnxruntime: neither PyTorch nor scikit-learn is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from anymodal.classifier.base import BaseClassifier
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.export.manifest import FILE, Manifest, ModelFile

if TYPE_CHECKING:
    import onnxruntime

_ROWS = 16
"""Rows that go through a model at once: bounds memory."""


class Outputs(NamedTuple):
    """The outputs of a model, as `anymodal.export.manifest.OUTPUTS` describes them."""

    probabilities: np.ndarray
    votes: np.ndarray
    novelty: np.ndarray
    joint: np.ndarray


class OnnxClassifier(BaseClassifier):
    """A classifier that `anymodal.export.export` wrote, with the methods of
    `ModalityAgnosticClassifier`.

    They raise `AnymodalError` where the export has no model for a modality of an item. A model is
    loaded when it is first used.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.calibrator = manifest.calibrator
        self.threads = threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    @classmethod
    def load(cls, folder: str | Path, threads: int | None = None) -> OnnxClassifier:
        """Open an export; `threads` per model, None: what onnxruntime chooses.

        Raises `AnymodalError` where it is missing, incomplete or of another format.
        """
        folder = Path(folder)
        if threads is not None and threads < 1:
            raise AnymodalError(f"threads must be 1 or more, not {threads}")
        manifest = Manifest.load(folder)
        missing = [m.file for m in manifest.models.values() if not (folder / m.file).is_file()]
        if missing:
            raise AnymodalError(f"{folder} lacks {', '.join(missing)}; export again")
        return cls(folder, manifest, threads)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def sample_rate(self) -> int:
        return self.manifest.sample_rate

    def score_windows(
        self, modality: Modality, parts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        # a part lasts a second at most, so it is prepared as one row
        rows = np.concatenate([self.prepare(modality, part) for part in parts])
        outputs = self.run(modality, rows)
        return outputs.votes, outputs.novelty

    def prepare(self, modality: Modality, item: np.ndarray) -> np.ndarray:
        """Return the model's input for float32 (samples,) or uint8 (height, width, 3)."""
        preparation = self._model(modality).preparation
        if preparation is None:
            raise AnymodalError(
                f"{self.manifest.encoders[modality].name} prepares items in another way: prepare "
                "them with it, and pass the result to `run`"
            )
        return preparation(item)

    def run(self, modality: Modality, rows: np.ndarray) -> Outputs:
        """Run the model of a modality on what `prepare` returned, stacked."""
        return self._run(modality, rows)

    def run_head(self, modality: Modality, embeddings: np.ndarray) -> Outputs:
        """Run the head of a modality on the encoder's embeddings, float32 (rows, dim)."""
        return self._run(f"{modality}_head", embeddings)

    def _run(self, name: str, rows: np.ndarray) -> Outputs:
        model = self._model(name)
        dtype, shape = model.input.dtype, model.input.shape
        rows = np.asarray(rows)
        if rows.dtype != dtype or ("n", *rows.shape[1:]) != shape:
            raise AnymodalError(
                f"{model.file} takes {dtype} ({', '.join(map(str, shape))}), not {rows.dtype} of "
                f"shape {rows.shape}"
            )
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise AnymodalError(f"{model.file} takes finite numbers only")
        session = self._session(name)
        # an empty array runs too, so that its outputs have the right shapes
        batches = [rows[first : first + _ROWS] for first in range(0, max(1, len(rows)), _ROWS)]
        parts = [session.run(Outputs._fields, {model.input.name: batch}) for batch in batches]
        return Outputs(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _model(self, name: str) -> ModelFile:
        if name in self.manifest.models:
            return self.manifest.models[name]
        if name not in MODALITIES:
            raise AnymodalError(f"no {name} here, only {', '.join(self.manifest.models)}")
        raise AnymodalError(
            f"this export has only the head of {name} ({self.manifest.left_out.get(name)}): embed "
            f"with {self.manifest.encoders[name].name} and pass the embeddings to run_head"
        )

    def _session(self, name: str) -> onnxruntime.InferenceSession:
        if name not in self._sessions:
            try:
                import onnxruntime
            except ModuleNotFoundError as error:
                raise AnymodalError("exports need onnxruntime: pip install onnxruntime") from error
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads or 0
            path = self.folder / self._model(name).file
            try:
                self._sessions[name] = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            # onnxruntime's exceptions share no base class
            except Exception as error:
                reason = str(error).strip().partition("\n")[0]
                raise AnymodalError(
                    f"{path} of {self.folder / FILE} cannot be loaded ({reason}); export again"
                ) from error
        return self._sessions[name]
