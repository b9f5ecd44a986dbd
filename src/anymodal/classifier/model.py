"""The modality-agnostic classifier, and the directory it is saved in; nothing there is pickled.

model.json              format, classes, encoders with versions, what it was trained and tested on
projection/             the projection of both modalities into the joint space
classifier.skops        the forest
calibrator.*            calibration, fusion and thresholds (`anymodal.classifier.open_set`)
reference.parquet       training rows in the joint space (`anymodal.classifier.reference`)
encoders/*.safetensors  weights of both encoders: loading needs no network
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal import __version__
from anymodal.classifier.base import BaseClassifier, parts_of, segmented
from anymodal.classifier.open_set import OpenSetCalibrator
from anymodal.classifier.prediction import Prediction
from anymodal.classifier.reference import Reference
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import atomic_folder, read_json, write_json
from anymodal.encoders import registry
from anymodal.encoders.base import Encoder
from anymodal.media.segmentation import Audio, Item, Limits, SegmentedItem
from anymodal.projection import load_projection

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

    from anymodal.projection.base import Projection

__all__ = ["Audio", "Limits", "ModalityAgnosticClassifier", "Prediction"]

FORMAT = 3
_BATCH = 32


class ModalityAgnosticClassifier(BaseClassifier):
    """Names the instrument in audio, an image or a video.

    `classes_` and `predict_proba` are as in scikit-learn; `predict` returns more.
    """

    def __init__(
        self,
        projection: Projection,
        forest: RandomForestClassifier,
        networks: Mapping[Modality, Encoder],
        facts: Mapping[str, Any] | None = None,
        calibrator: OpenSetCalibrator | None = None,
        reference: Reference | None = None,
    ) -> None:
        assert projection.origin is not None
        for modality in MODALITIES:
            expected, network = projection.origin.encoder(modality), networks[modality]
            if (network.name, network.version) != (expected.name, expected.version):
                raise AnymodalError(
                    f"the projection was made with {expected.name} {expected.version}, not with "
                    f"{network.name} {network.version}; embed and translate again"
                )
        self.projection = projection
        self.forest = forest
        self.networks = dict(networks)
        self.facts = dict(facts or {})
        self.calibrator = calibrator or OpenSetCalibrator()
        self.reference = reference

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.forest.classes_)

    @property
    def sample_rate(self) -> int:
        rate = self.networks["audio"].sample_rate
        assert rate is not None
        return rate

    def score_windows(
        self, modality: Modality, parts: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._scores(modality, self._embedded(modality, parts))

    def _scores(self, modality: Modality, embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        votes = self.votes(self.projection.project(modality, embeddings))
        return votes, self.calibrator.novelties(modality, embeddings)

    def votes(self, joint: np.ndarray) -> np.ndarray:
        """Return shares of the forest's votes for joint vectors (rows, dim), float64 (rows,
        classes): not calibrated."""
        if not len(joint):
            return np.empty((0, len(self.classes)))
        return self.forest.predict_proba(joint)

    def embed(
        self, items: Iterable[Item], limits: Limits | None = None
    ) -> list[dict[Modality, np.ndarray]]:
        """Return the joint vectors of items (see `predict`), by the modalities that each has:
        float32 (dim,), L2-normalised, the mean over windows."""
        batches = segmented(items, self.sample_rate, limits)
        return [vectors for batch in batches for vectors in self.embed_windows(batch)]

    def embed_windows(self, items: Sequence[SegmentedItem]) -> list[dict[Modality, np.ndarray]]:
        """`embed` for items that are segmented at `sample_rate` already."""
        return self._vectors(items, self._embedded_windows(items))

    def predict_and_embed(
        self, items: Sequence[SegmentedItem]
    ) -> tuple[list[Prediction], list[dict[Modality, np.ndarray]]]:
        """`predict_windows` and `embed_windows`, running the encoders once."""
        embedded = self._embedded_windows(items)
        predictions = self._predicted(items, lambda m, _: self._scores(m, embedded[m]))
        return predictions, self._vectors(items, embedded)

    def _embedded_windows(self, items: Sequence[SegmentedItem]) -> dict[Modality, np.ndarray]:
        parts = {modality: parts_of(items, modality)[0] for modality in MODALITIES}
        return {modality: self._embedded(modality, of) for modality, of in parts.items() if of}

    def _vectors(
        self, items: Sequence[SegmentedItem], embedded: Mapping[Modality, np.ndarray]
    ) -> list[dict[Modality, np.ndarray]]:
        vectors: list[dict[Modality, np.ndarray]] = [{} for _ in items]
        for modality, embeddings in embedded.items():
            joint = self.projection.project(modality, embeddings)
            ends = parts_of(items, modality)[2]
            for of_item, rows in zip(vectors, np.split(joint, ends), strict=True):
                if len(rows):
                    mean = rows.mean(axis=0, dtype=np.float64)
                    of_item[modality] = (mean / (np.linalg.norm(mean) or 1.0)).astype(np.float32)
        return vectors

    def _embedded(self, modality: Modality, parts: Sequence[np.ndarray]) -> np.ndarray:
        embed = self.networks[modality].embed
        batches = [parts[first : first + _BATCH] for first in range(0, len(parts), _BATCH)]
        return np.concatenate([embed(batch) for batch in batches])

    def save(self, folder: str | Path) -> None:
        """Write the classifier as a directory, replacing one that is there; atomic."""
        import skops.io

        with atomic_folder(folder) as new:
            self.projection.save(new / "projection")
            skops.io.dump(self.forest, new / "classifier.skops", compression=8)
            self.calibrator.save(new)
            if self.reference is not None:
                self.reference.save(new)
            (new / "encoders").mkdir()
            for network in self.networks.values():
                network.save_weights(new / "encoders" / f"{network.name}.safetensors")
            header = {
                "format": FORMAT,
                "anymodal": __version__,
                "classes": self.classes,
                "encoders": {
                    modality: {
                        "name": network.name,
                        "version": network.version,
                        "precision": getattr(network, "precision", "float32"),
                    }
                    for modality, network in self.networks.items()
                },
                "facts": self.facts,
            }
            write_json(new / "model.json", header)

    @classmethod
    def load(cls, location: str | Path, device: str = "auto") -> ModalityAgnosticClassifier:
        """Load from a directory that `save` wrote, or from an MLflow model URI
        (`models:/anymodal-classifier@champion`, `runs:/…`)."""
        folder = _local(location)
        if not (folder / "model.json").is_file():
            raise AnymodalError(
                f"no classifier at {folder}; train one with `anymodal run`, or give the folder "
                "or the MLflow URI of one"
            )
        header = read_json(folder / "model.json")
        if header.get("format") != FORMAT:
            raise AnymodalError(
                f"{folder} has format {header.get('format')}, this version reads {FORMAT}; "
                "load it with the anymodal that wrote it, or train again"
            )
        networks: dict[Modality, Encoder] = {}
        for modality in MODALITIES:
            encoder = header["encoders"][modality]
            weights = folder / "encoders" / f"{encoder['name']}.safetensors"
            networks[modality] = registry.get(
                encoder["name"], device, weights, encoder["precision"]
            )
        return cls(
            load_projection(folder / "projection"),
            _load_forest(folder / "classifier.skops"),
            networks,
            header["facts"],
            OpenSetCalibrator.load(folder),
            Reference.load(folder),
        )


def _load_forest(path: Path) -> RandomForestClassifier:
    import skops.io

    try:
        # the tree's own compiled type is all that a forest needs beyond skops' defaults
        return skops.io.load(path, trusted=["sklearn.tree._tree.Tree"])
    except Exception as error:
        raise AnymodalError(
            f"{path} is not readable ({error}); save the classifier again"
        ) from error


def _local(location: str | Path) -> Path:
    """The folder of a classifier; downloaded where `location` is an MLflow URI."""
    text = str(location)
    if "://" not in text and not text.startswith(("models:/", "runs:/", "mlflow-artifacts:/")):
        return Path(location)
    import mlflow

    try:
        folder = Path(mlflow.artifacts.download_artifacts(text, dst_path=tempfile.mkdtemp()))
    except mlflow.MlflowException as error:
        raise AnymodalError(f"MLflow cannot fetch {text}: {str(error).splitlines()[0]}") from error
    inner = folder / "artifacts" / "classifier"
    return inner if inner.is_dir() else folder
