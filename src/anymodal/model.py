"""The user's object: a classifier that takes a sound or a picture.

A saved classifier is a versioned directory in which nothing is pickled:

model.json            format, classes, encoders with versions, what it was trained and tested on
projection/           the projection of both modalities into the joint space
classifier.skops      the forest
encoders/*.safetensors weights of both encoders, so that it runs where no package index is at hand
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal import __version__, encoders, media
from anymodal.encoders.base import MODALITIES, WINDOW_SECONDS, Encoder, Modality
from anymodal.errors import AnymodalError
from anymodal.projection import load_projection
from anymodal.storage import read_json, write_json

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

    from anymodal.projection.base import Projection

FORMAT = 1
MAX_WINDOWS = 60
"""One-second windows that a long sound is judged by at most, spread evenly over it."""

Item = str | Path | bytes


@dataclass(frozen=True)
class Prediction:
    """The classifier's answer for one item."""

    item: str
    """The file's name, or `<bytes>`."""
    modality: Modality
    """The modality that was used."""
    classes: tuple[str, ...]
    probabilities: np.ndarray
    """float64 (classes,), summing to 1: the share of the forest's trees, averaged over windows;
    not calibrated."""
    windows: int
    """One-second windows that were averaged; 1 for a picture."""

    def top(self, count: int) -> list[tuple[str, float]]:
        """The `count` most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def as_row(self) -> dict[str, Any]:
        """The answer as one row of a table: the best class, then a column a class."""
        best, probability = self.top(1)[0]
        return {
            "instrument": best,
            "probability": probability,
            "modality": self.modality,
            **dict(zip(self.classes, self.probabilities.tolist(), strict=True)),
        }

    def as_dict(self) -> dict[str, Any]:
        """The answer as plain JSON values."""
        return {
            "item": self.item,
            "modality": self.modality,
            "instrument": self.top(1)[0][0],
            "probabilities": dict(self.top(len(self.classes))),
            "windows": self.windows,
        }


class ModalityAgnosticClassifier:
    """Names the instrument in a sound or a picture, whichever is given."""

    def __init__(
        self,
        projection: Projection,
        forest: RandomForestClassifier,
        networks: Mapping[Modality, Encoder],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        if projection.origin is None:
            raise AnymodalError("the projection does not say which encoders it was made for")
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

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return tuple(str(name) for name in self.forest.classes_)

    def predict(self, items: Sequence[Item]) -> list[Prediction]:
        """Classify files (or their bytes), sounds and pictures mixed, in the order given.

        A sound is judged by its one-second windows, whose probabilities are averaged. A file that
        cannot be decoded raises `MediaError`, which names it.
        """
        if isinstance(items, (str, bytes, Path)):
            raise AnymodalError("predict takes a list of items, not one item; write [item]")
        decoded = [self._decode(item) for item in items]
        answers: list[Prediction | None] = [None] * len(decoded)
        for modality in MODALITIES:
            chosen = [i for i, (kind, _) in enumerate(decoded) if kind == modality]
            parts = [part for i in chosen for part in decoded[i][1]]
            if not parts:
                continue
            rows = self.predict_embeddings(modality, self._embed(modality, parts))
            start = 0
            for i in chosen:
                count = len(decoded[i][1])
                answers[i] = Prediction(
                    item="<bytes>" if isinstance(items[i], bytes) else str(items[i]),
                    modality=modality,
                    classes=self.classes,
                    probabilities=rows[start : start + count].mean(axis=0),
                    windows=count,
                )
                start += count
        return [answer for answer in answers if answer is not None]

    def predict_embeddings(self, modality: Modality, embeddings: np.ndarray) -> np.ndarray:
        """Class probabilities (rows, classes) of embeddings (rows, encoder's dim)."""
        return self.forest.predict_proba(self.projection.project(modality, embeddings))

    def save(self, folder: str | Path) -> None:
        """Write the classifier as a directory, replacing one that is there; atomic."""
        import skops.io

        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            staged = Path(name) / "new"
            self.projection.save(staged / "projection")
            skops.io.dump(self.forest, staged / "classifier.skops", compression=8)
            (staged / "encoders").mkdir()
            for network in self.networks.values():
                network.save_weights(staged / "encoders" / f"{network.name}.safetensors")
            write_json(
                staged / "model.json",
                {
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
                },
            )
            if folder.exists():
                folder.replace(Path(name) / "old")
            staged.replace(folder)

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
        meta = read_json(folder / "model.json")
        if meta.get("format") != FORMAT:
            raise AnymodalError(
                f"{folder} has format {meta.get('format')}, this version reads {FORMAT}; "
                "load it with the anymodal that wrote it, or train again"
            )
        networks: dict[Modality, Encoder] = {}
        for modality in MODALITIES:
            name = meta["encoders"][modality]["name"]
            precision = meta["encoders"][modality].get("precision", "float32")
            weights = folder / "encoders" / f"{name}.safetensors"
            networks[modality] = encoders.get(name, device, weights, precision)
        projection = load_projection(
            folder / "projection",
            expect_versions={m: network.version for m, network in networks.items()},
        )
        return cls(projection, _load_forest(folder / "classifier.skops"), networks, meta["facts"])

    def _decode(self, item: Item) -> tuple[Modality, list[np.ndarray]]:
        kind = media.sniff(item)
        if kind == "image":
            return "image", [media.load_image(item)]
        if kind == "video":
            raise AnymodalError(
                f"{'<bytes>' if isinstance(item, bytes) else item} is a video; "
                "give a picture of it, or its sound"
            )
        rate = self.networks["audio"].sample_rate
        assert rate is not None
        return "audio", _windows(media.load_audio(item, rate, duration_s=None), rate)

    def _embed(self, modality: Modality, parts: list[np.ndarray], batch: int = 32) -> np.ndarray:
        network = self.networks[modality]
        return np.concatenate(
            [network.embed(parts[start : start + batch]) for start in range(0, len(parts), batch)]
        )


def _windows(samples: np.ndarray, rate: int) -> list[np.ndarray]:
    size = int(WINDOW_SECONDS * rate)
    count = min(max(1, len(samples) // size), MAX_WINDOWS)
    starts = np.linspace(0, max(0, len(samples) - size), count).astype(int)
    return [samples[start : start + size] for start in starts]


def _load_forest(path: Path) -> RandomForestClassifier:
    import skops.io

    try:
        # the tree's own compiled type is all that a forest needs beyond skops' defaults
        return skops.io.load(path, trusted=["sklearn.tree._tree.Tree"])
    except FileNotFoundError as error:
        raise AnymodalError(f"{path} is missing; save the classifier again") from error
    except Exception as error:
        raise AnymodalError(f"{path} is not a readable classifier ({error})") from error


def _local(location: str | Path) -> Path:
    text = str(location)
    if "://" not in text and not text.startswith(("models:/", "runs:/", "mlflow-artifacts:/")):
        return Path(location)
    import mlflow

    try:
        fetched = mlflow.artifacts.download_artifacts(text, dst_path=tempfile.mkdtemp())
    except mlflow.MlflowException as error:
        raise AnymodalError(f"MLflow cannot fetch {text}: {str(error).splitlines()[0]}") from error
    folder = Path(fetched)
    inner = folder / "artifacts" / "classifier"
    return inner if inner.is_dir() else folder
