"""What the stages share: where they work, with what parameters, on which clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from anymodal.config.params import Params
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.core.workspace import Workspace, pair_name
from anymodal.data.clips import read_clips
from anymodal.data.info import DatasetInfo
from anymodal.embeddings.rows import PairRows, Rows, read_pair, versions
from anymodal.evaluation.resampling import Resampling
from anymodal.evaluation.selection import Selection
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.projection.training_data import TrainingData
from anymodal.tracking.runs import DatasetRef, StageRun, stage_run

Advance = Callable[[int, int], None]
"""Of what is done, and of the total."""
T = TypeVar("T")


def silent(_title: str = "") -> AbstractContextManager[Advance]:
    """Show no progress."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Context:
    """A project, its parameters, and how progress is shown; inputs are read once."""

    workspace: Workspace
    params: Params
    progress: Callable[[str], AbstractContextManager[Advance]] = field(default=silent)
    say: Callable[[str], None] = field(default=lambda line: None)

    @cached_property
    def dataset(self) -> DatasetInfo:
        """What stage `dataset` wrote."""
        return DatasetInfo.read(self.workspace.dataset, "dataset")

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clip table with its subsets."""
        clips = read_clips(self.workspace.clips)
        if clips["subset"].isna().any():
            raise AnymodalError(
                f"{self.workspace.clips} has no subsets; run `anymodal dataset` first"
            )
        return clips

    @property
    def dataset_ref(self) -> DatasetRef:
        """The dataset as its runs name it."""
        return DatasetRef(self.dataset.name, self.dataset.pairing, self.workspace.clips)

    def subset(self, subset: str, split: str | None = None) -> pd.DataFrame:
        """The clips of one subset, or of one split of it."""
        chosen = self.clips["subset"] == subset
        if split is not None:
            chosen &= self.clips["split"] == split
        return self.clips[chosen]

    def rows(self, pair: tuple[str, str], subset: str, split: str | None = None) -> PairRows:
        """The embeddings of one subset, or of one split of it, by a pair of encoders."""
        return read_pair(self.workspace.embeddings, self.subset(subset, split), *pair)

    def projection(
        self, pair: tuple[str, str], rows: Mapping[Modality, Rows], seed: int | None = None
    ) -> Projection:
        """A pair's translation of one seed, or its PCA; one of other encoders is refused."""
        name, workspace = pair_name(*pair), self.workspace
        folder = workspace.pca(name) if seed is None else workspace.translation(name, seed)
        return load_projection(folder, versions(rows))

    def training_data(self, pair: tuple[str, str]) -> TrainingData:
        """The rows that a pair's translations are trained on."""
        train, valid = (self.rows(pair, "translation", split) for split in ("train", "valid"))
        return TrainingData(*pair, self.dataset.pairing, train, valid, self.params.seed)

    @cached_property
    def selected_pair(self) -> tuple[str, str]:
        """The pair of later stages: the selected one, or the one that params.yaml names."""
        chosen = self.params.classify.pair
        if chosen == "best":
            selection = Selection.read(self.workspace.selection, "select")
            return selection.audio, selection.image
        pairs = {pair_name(*pair): pair for pair in self.params.embed.pairs}
        if chosen not in pairs:
            raise AnymodalError(f"classify.pair {chosen!r} is none of: best, {', '.join(pairs)}")
        return pairs[chosen]

    def seeds(self, count: int) -> list[int]:
        """The seeds of `count` repetitions: consecutive from params.yaml's."""
        return list(range(self.params.seed, self.params.seed + count))

    @property
    def resampling(self) -> Resampling:
        """How the intervals of classification scores are computed."""
        return Resampling(replicates=self.params.classify.bootstrap, seed=self.params.seed)

    def measured(self, pair: tuple[str, str]) -> dict[str, Any]:
        """The fields of `anymodal.core.record.Measured`."""
        named = {"dataset": self.dataset.name, "pairing": self.dataset.pairing}
        return {**named, "pair": pair_name(*pair)}

    def track(self, title: str, items: Sequence[T]) -> Iterator[T]:
        """The items one by one, with a progress bar."""
        with self.progress(title) as advance:
            for done, item in enumerate(items):
                advance(done, len(items))
                yield item
            advance(len(items), len(items))

    def stage_run(self, stage: str, name: str = "") -> AbstractContextManager[StageRun]:
        """The MLflow run of a stage; `name` distinguishes several runs of it."""
        return stage_run(stage, self.params, self.dataset_ref, name)

    @contextmanager
    def pair_run(
        self, stage: str, pair: tuple[str, str], subset: str, split: str | None = None
    ) -> Iterator[StageRun]:
        """The MLflow run of a stage on one pair of encoders and the clips of one subset."""
        name = pair_name(*pair)
        with self.stage_run(stage, name) as run:
            run.log_params({"pair": name, "audio_encoder": pair[0], "image_encoder": pair[1]})
            run.log_dataset(self.subset(subset, split), self.dataset_ref, subset)
            yield run
