"""What the report rests on: every stage's result, read and checked to be of one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from anymodal.classifier.assessment import CalibrationResult
from anymodal.core.errors import AnymodalError
from anymodal.core.record import Measured
from anymodal.core.workspace import Workspace
from anymodal.data.checks import CheckReport, CheckResult
from anymodal.data.info import DatasetInfo
from anymodal.evaluation.classification import ClassificationResult
from anymodal.evaluation.cross_source_scores import CrossSourceResult
from anymodal.evaluation.mixing import MixingResult
from anymodal.evaluation.retrieval import RetrievalResult
from anymodal.evaluation.selection import Selection
from anymodal.evaluation.structure import StructureResult
from anymodal.projection.trainings import PairTrainings

PREDICTED = ("system", "regime", "target", "seed", "clip_id", "truth", "predicted")
MIXED = ("system", "target", "samples", "draw", "macro_f1")


@dataclass(frozen=True)
class ReportInputs:
    """The results of all stages."""

    dataset: DatasetInfo
    checks: tuple[CheckResult, ...] | None
    """None where no data checks were run."""
    trainings: PairTrainings
    """Of the pair that was classified with."""
    retrieval: tuple[RetrievalResult, ...]
    """In the order of the ranking."""
    selection: Selection
    classification: ClassificationResult
    predictions: pd.DataFrame
    """Columns of `PREDICTED`."""
    calibration: CalibrationResult
    mixing: MixingResult
    curve: pd.DataFrame
    """Columns of `MIXED`."""
    structure: StructureResult
    cross_source: CrossSourceResult

    @classmethod
    def read(cls, workspace: Workspace) -> ReportInputs:
        """Read the results in `workspace`.

        Raises `AnymodalError`, which names the file and the stage to run, for one that is missing,
        damaged or of another dataset.
        """
        checks = workspace.checks / "checks.json"
        dataset = DatasetInfo.read(workspace.dataset, "dataset")
        selection = Selection.read(workspace.selection, "select")
        classification = ClassificationResult.read(workspace.classification, "classify")
        inputs = cls(
            dataset=dataset,
            checks=CheckReport.read(checks, "check").results if checks.is_file() else None,
            trainings=PairTrainings.read(workspace.training(classification.pair), "translate"),
            retrieval=tuple(
                RetrievalResult.read(workspace.retrieval(ranked.pair), "retrieve")
                for ranked in selection.ranking
            ),
            selection=selection,
            classification=classification,
            predictions=_table(workspace.predictions, PREDICTED, "classify"),
            calibration=CalibrationResult.read(workspace.calibration, "classify"),
            mixing=MixingResult.read(workspace.mixing, "mixing"),
            curve=_table(workspace.mixing_curve, MIXED, "mixing"),
            structure=StructureResult.read(workspace.structure, "structure"),
            cross_source=CrossSourceResult.read(workspace.cross_source, "cross_source"),
        )
        for stage, result in inputs.measured:
            if (result.dataset, result.pairing) != (dataset.name, dataset.pairing):
                raise AnymodalError(
                    f"the results of {stage} are of {result.dataset!r} ({result.pairing}-paired), "
                    f"but the dataset is {dataset.name!r} ({dataset.pairing}-paired); "
                    f"run `anymodal {stage}` again"
                )
        return inputs

    @property
    def measured(self) -> list[tuple[str, Measured]]:
        """Stages and their results that name a dataset."""
        return [
            *(("retrieve", result) for result in self.retrieval),
            ("classify", self.classification),
            ("classify", self.calibration),
            ("mixing", self.mixing),
            ("structure", self.structure),
            ("cross_source", self.cross_source),
        ]


def _table(path: Path, columns: Sequence[str], stage: str) -> pd.DataFrame:
    if not path.is_file():
        raise AnymodalError(f"no {path}; run `anymodal {stage}` first")
    try:
        return pd.read_parquet(path, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AnymodalError(f"{path}: {reason}; run `anymodal {stage}` again") from error
