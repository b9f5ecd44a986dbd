"""The user's object: a classifier that takes a sound, a picture or a film.

A saved classifier is a versioned directory in which nothing is pickled:

model.json            format, classes, encoders with versions, what it was trained and tested on
projection/           the projection of both modalities into the joint space
classifier.skops      the forest
judge.*               calibration, fusion and what is taken for unknown (`anymodal.judge`)
reference.*           training rows in the joint space (`anymodal.reference`)
encoders/*.safetensors weights of both encoders, so that it runs where no package index is at hand
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anymodal import __version__, encoders
from anymodal.answering import Predicting, answer, gathered, taken_apart
from anymodal.encoders.base import MODALITIES, Encoder, Modality
from anymodal.errors import AnymodalError
from anymodal.items import Item, Limits, Moments, Sound
from anymodal.judge import Judge
from anymodal.prediction import Prediction
from anymodal.projection import load_projection
from anymodal.reference import Reference
from anymodal.storage import read_json, write_json

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

    from anymodal.projection.base import Projection

__all__ = ["Limits", "ModalityAgnosticClassifier", "Prediction", "Sound"]

FORMAT = 2


class ModalityAgnosticClassifier(Predicting):
    """Names the instrument in a sound, a picture or a film, whichever is given.

    `classes_` and `predict_proba` are as in scikit-learn; `predict` tells more.
    """

    def __init__(
        self,
        projection: Projection,
        forest: RandomForestClassifier,
        networks: Mapping[Modality, Encoder],
        facts: Mapping[str, Any] | None = None,
        judge: Judge | None = None,
        reference: Reference | None = None,
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
        self.judge = judge or Judge()
        self.reference = reference

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return tuple(str(name) for name in self.forest.classes_)

    @property
    def sample_rate(self) -> int:
        """Hz of the sounds that the audio encoder takes."""
        rate = self.networks["audio"].sample_rate
        assert rate is not None
        return rate

    def predict_moments(self, items: Sequence[Moments]) -> list[Prediction]:
        """`predict` for items that `anymodal.items.take_apart` took apart at `sample_rate`."""
        seen = {modality: self._embedded(items, modality) for modality in MODALITIES}
        votes = {
            modality: self.predict_embeddings(modality, rows)
            if len(rows)
            else np.empty((0, len(self.classes)))
            for modality, (rows, _) in seen.items()
        }
        novelties = {m: self.judge.novelties(m, rows) for m, (rows, _) in seen.items()}
        answers = []
        for number, item in enumerate(items):
            places: dict[Modality, dict[int, int]] = {
                m: where[number] for m, (_, where) in seen.items() if where[number]
            }
            answers.append(answer(item, places, votes, novelties, self.judge, self.classes))
        return answers

    def predict_embeddings(self, modality: Modality, embeddings: np.ndarray) -> np.ndarray:
        """Shares of the forest's votes (rows, classes) for embeddings (rows, encoder's dim): not
        calibrated, see `judge`."""
        return self.forest.predict_proba(self.projection.project(modality, embeddings))

    def embed(
        self, items: Iterable[Item], limits: Limits | None = None
    ) -> list[dict[Modality, np.ndarray]]:
        """Joint vectors of items (see `predict`): of each modality that an item has one, float32
        (dim,), L2-normalised, the mean of its moments' vectors."""
        found: list[dict[Modality, np.ndarray]] = []
        for some in taken_apart(items, self.sample_rate, limits):
            found += self.embed_moments(some)
        return found

    def embed_moments(self, items: Sequence[Moments]) -> list[dict[Modality, np.ndarray]]:
        """`embed` for items that were taken apart."""
        found: list[dict[Modality, np.ndarray]] = [{} for _ in items]
        for modality in MODALITIES:
            rows, where = self._embedded(items, modality)
            if not len(rows):
                continue
            joint = self.projection.project(modality, rows)
            for number, places in enumerate(where):
                if places:
                    mean = joint[list(places.values())].mean(axis=0, dtype=np.float64)
                    length = np.linalg.norm(mean)
                    found[number][modality] = (mean / (length or 1.0)).astype(np.float32)
        return found

    def _embedded(
        self, items: Sequence[Moments], modality: Modality, batch: int = 32
    ) -> tuple[np.ndarray, list[dict[int, int]]]:
        """Embeddings of all moments that have a modality, and for each item which moment's is in
        which row."""
        parts, where = gathered(items, modality)
        network = self.networks[modality]
        rows = [network.embed(parts[at : at + batch]) for at in range(0, len(parts), batch)]
        return (np.concatenate(rows) if rows else np.empty((0, network.dim), np.float32)), where

    def save(self, folder: str | Path) -> None:
        """Write the classifier as a directory, replacing one that is there; atomic."""
        import skops.io

        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            staged = Path(name) / "new"
            self.projection.save(staged / "projection")
            skops.io.dump(self.forest, staged / "classifier.skops", compression=8)
            self.judge.save(staged)
            if self.reference is not None:
                self.reference.save(staged)
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
        return cls(
            projection,
            _load_forest(folder / "classifier.skops"),
            networks,
            meta["facts"],
            Judge.load(folder),
            Reference.load(folder),
        )


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
