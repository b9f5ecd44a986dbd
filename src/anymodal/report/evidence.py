"""What the page rests on: the artifacts of the earlier stages, read and checked.

Readers ignore fields that they do not know, and refuse, in one line that names the file and the
stage to run, what is missing, unreadable or from another dataset.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from anymodal.errors import AnymodalError
from anymodal.report.records import (
    Across,
    Curve,
    Dataset,
    Judged,
    OutcomeRow,
    Record,
    Results,
    Retrieval,
    Selection,
    Spaces,
    SummaryRow,
    Trainings,
)
from anymodal.storage import read_json
from anymodal.workspace import Workspace

PREDICTED = ("system", "regime", "target", "seed", "truth", "predicted")
MIXED = ("system", "target", "samples", "draw", "macro_f1")


@dataclass(frozen=True)
class Check:
    """Result of one data check."""

    name: str
    passed: bool
    severity: str
    detail: str


@dataclass(frozen=True)
class Evidence:
    """Everything that the page tells."""

    dataset: Dataset
    trainings: Trainings
    """Of the pair that was classified with."""
    retrieval: tuple[Retrieval, ...]
    """In the order of the ranking, best first."""
    selection: Selection
    results: Results
    summary: pd.DataFrame
    """`results.summary` as a table."""
    outcomes: pd.DataFrame
    """`results.outcomes` as a table."""
    predictions: pd.DataFrame
    """Columns system, regime, target, seed, clip_id, truth, predicted."""
    checks: tuple[Check, ...] | None
    """None where no data checks were run."""
    mixing: Curve
    curve: pd.DataFrame
    """Columns system, target, samples, draw, macro_f1."""
    spaces: Spaces
    across: Across
    judged: Judged


def read_evidence(workspace: Workspace) -> Evidence:
    """Read all artifacts of `workspace` that the page needs."""
    dataset = _read(workspace.dataset, Dataset, "dataset")
    selection = _read(workspace.selection, Selection, "select")
    retrieval = tuple(
        _read(workspace.retrieval(ranked.pair), Retrieval, "retrieve")
        for ranked in selection.ranking
    )
    results = _read(workspace.classification / "results.json", Results, "classify")
    trainings = _read(workspace.training(results.pair), Trainings, "translate")
    mixing = _read(workspace.mixing / "curve.json", Curve, "mixing")
    spaces = _read(workspace.structure / "structure.json", Spaces, "structure")
    across = _read(workspace.across / "across.json", Across, "across")
    judged = _read(workspace.judge, Judged, "classify")
    measured: list[tuple[str, Results | Retrieval | Curve | Spaces | Across | Judged]] = [
        ("classify", results),
        ("classify", judged),
        ("mixing", mixing),
        ("structure", spaces),
        ("across", across),
    ]
    measured += [("retrieve", score) for score in retrieval]
    for stage, record in measured:
        if (record.dataset, record.pairing) != (dataset.name, dataset.pairing):
            raise AnymodalError(
                f"the results of {stage} are of {record.dataset!r} ({record.pairing}-paired), but "
                f"the dataset is {dataset.name!r} ({dataset.pairing}-paired); "
                f"run `anymodal {stage}` again"
            )
    return Evidence(
        dataset=dataset,
        trainings=trainings,
        retrieval=retrieval,
        selection=selection,
        results=results,
        summary=_table(results.summary, SummaryRow),
        outcomes=_table(results.outcomes, OutcomeRow),
        predictions=_parquet(
            workspace.classification / "predictions.parquet", PREDICTED, "classify"
        ),
        checks=_checks(workspace.checks / "checks.json"),
        mixing=mixing,
        curve=_parquet(workspace.mixing / "curve.parquet", MIXED, "mixing"),
        spaces=spaces,
        across=across,
        judged=judged,
    )


Kind = TypeVar("Kind", bound=Record)


def _read(path: Path, kind: type[Kind], stage: str) -> Kind:
    content = _json(path, stage)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise AnymodalError(
            f"{path}: {where}: {first['msg']}; run `anymodal {stage}` again"
        ) from error


def _json(path: Path, stage: str) -> Any:
    if not path.is_file():
        raise AnymodalError(f"no {path}; run `anymodal {stage}` first")
    try:
        return read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AnymodalError(
            f"{path} is not valid JSON ({error}); run `anymodal {stage}` again"
        ) from error


def _table(records: Sequence[Record], kind: type[Record]) -> pd.DataFrame:
    return pd.DataFrame([r.model_dump() for r in records], columns=list(kind.model_fields))


def _parquet(path: Path, needed: Sequence[str], stage: str) -> pd.DataFrame:
    if not path.is_file():
        raise AnymodalError(f"no {path}; run `anymodal {stage}` first")
    try:
        table = pd.read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise AnymodalError(
            f"{path} is not a readable parquet file; run `anymodal {stage}` again"
        ) from error
    if missing := [column for column in needed if column not in table.columns]:
        raise AnymodalError(
            f"{path} lacks the column(s) {', '.join(missing)}; run `anymodal {stage}` again"
        )
    return table


def _checks(path: Path) -> tuple[Check, ...] | None:
    if not path.is_file():
        return None
    content = _json(path, "check")
    if isinstance(content, dict):
        # the results, under whatever name they are kept
        content = content.get("results") or content.get("checks") or []
    entries = [entry for entry in content if isinstance(entry, dict)]
    return tuple(
        Check(
            name=str(_first(entry, ("name", "check", "expectation"), "unnamed check")),
            passed=bool(_first(entry, ("success", "passed", "ok"), False)),
            severity=str(_first(entry, ("severity", "level"), "error")),
            detail=str(_first(entry, ("message", "detail", "observed", "note"), "")),
        )
        for entry in entries
    )


def _first(entry: dict[str, Any], names: Sequence[str], otherwise: Any) -> Any:
    return next((entry[name] for name in names if entry.get(name) is not None), otherwise)
