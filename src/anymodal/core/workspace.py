"""The paths of every stage's inputs and outputs, as dvc.yaml declares them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


def pair_name(audio: str, image: str) -> str:
    """Name of a pair of encoders: `<audio encoder>+<image encoder>`."""
    return f"{audio}+{image}"


@dataclass(frozen=True)
class Workspace:
    """The folder of one project and the files in it."""

    root: Path = Path()

    @property
    def artifacts(self) -> Path:
        """Folder of everything that stages write."""
        return self.root / "artifacts"

    @property
    def clips(self) -> Path:
        """Clip table with its subsets and splits."""
        return self.artifacts / "clips.parquet"

    @property
    def dataset(self) -> Path:
        """Facts about the dataset: name, pairing, classes, what was drawn."""
        return self.artifacts / "dataset.json"

    @property
    def quality(self) -> Path:
        """Levels, contrasts and sizes of the clips' media; no rows without media."""
        return self.artifacts / "quality.parquet"

    @property
    def checks(self) -> Path:
        """Folder of the data checks' results."""
        return self.artifacts / "checks"

    @property
    def embeddings(self) -> Path:
        """Folder of the embedding cache."""
        return self.artifacts / "embeddings"

    def projections(self, pair: str) -> Path:
        """Folder of one pair's projections: `seed-<n>` translations and `pca`."""
        return self.artifacts / "projections" / pair

    def translation(self, pair: str, seed: int) -> Path:
        """One translation of a pair."""
        return self.projections(pair) / f"seed-{seed}"

    def pca(self, pair: str) -> Path:
        """The PCA baseline of a pair."""
        return self.projections(pair) / "pca"

    def training(self, pair: str) -> Path:
        """A pair's trainings: losses of every epoch."""
        return self.projections(pair) / "training.json"

    def retrieval(self, pair: str) -> Path:
        """Retrieval scores of a pair."""
        return self.artifacts / "retrieval" / f"{pair}.json"

    @property
    def selection(self) -> Path:
        """The chosen pair and the ranking behind the choice."""
        return self.artifacts / "selection.json"

    @property
    def classification(self) -> Path:
        """Scores of the classifiers."""
        return self.artifacts / "classification" / "results.json"

    @property
    def predictions(self) -> Path:
        """The answers behind the scores, one row per system, regime, target, seed and clip."""
        return self.artifacts / "classification" / "predictions.parquet"

    @property
    def metrics(self) -> Path:
        """Mean scores, for `dvc metrics`."""
        return self.artifacts / "classification" / "metrics.json"

    @property
    def calibration(self) -> Path:
        """Calibration, fusion and open-set rates of the classifier."""
        return self.artifacts / "classification" / "calibration.json"

    @property
    def mixing(self) -> Path:
        """Points of the mixing curve."""
        return self.artifacts / "mixing" / "curve.json"

    @property
    def mixing_curve(self) -> Path:
        """The forests behind the points, one row each."""
        return self.artifacts / "mixing" / "curve.parquet"

    @property
    def structure(self) -> Path:
        """Structure of the joint spaces."""
        return self.artifacts / "structure" / "structure.json"

    @property
    def cross_source(self) -> Path:
        """Scores within and across sources."""
        return self.artifacts / "cross_source" / "cross_source.json"

    @property
    def cross_source_predictions(self) -> Path:
        """The answers behind them, one row per protocol, system, regime, seed, fold and clip."""
        return self.artifacts / "cross_source" / "predictions.parquet"

    @property
    def classifier(self) -> Path:
        """The classifier that `anymodal predict` uses."""
        return self.artifacts / "classifier"

    @property
    def report(self) -> Path:
        """The report page."""
        return self.artifacts / "report" / "index.html"

    @property
    def scratch(self) -> Path:
        """Folder of checkpoints that a killed stage resumes from; no stage's output."""
        return self.root / ".anymodal"
