"""Where each stage's inputs and outputs lie: the paths that dvc.yaml declares, in one place."""

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
        """Facts about the dataset: name, pairing, classes, account of what was drawn."""
        return self.artifacts / "dataset.json"

    @property
    def quality(self) -> Path:
        """Levels, contrasts and sizes of the clips' media; no rows where there are no media."""
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
        """Losses of a pair's trainings, epoch by epoch."""
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
        """Folder of the classification results."""
        return self.artifacts / "classification"

    @property
    def judge(self) -> Path:
        """What the classifier's calibration, fusion and abstaining are worth."""
        return self.classification / "judge.json"

    @property
    def mixing(self) -> Path:
        """Folder of the mixing curve."""
        return self.artifacts / "mixing"

    @property
    def structure(self) -> Path:
        """Folder of the joint spaces' structure."""
        return self.artifacts / "structure"

    @property
    def across(self) -> Path:
        """Folder of the scores within and across sources."""
        return self.artifacts / "across"

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
