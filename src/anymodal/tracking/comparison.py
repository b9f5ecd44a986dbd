"""MLflow's runs as tables: a list of them, and several beside one another.

A comparison tells what differs between the runs and nothing else: the parameters that are not the
same, the metrics with their spread, and of each metric the best. Names are those of
`anymodal.tracking`.

* :func:`find`: runs of a stage, or pipelines (their parents)
* :func:`pick`: runs by their ids
* :func:`compare`: several runs side by side
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from anymodal.errors import AnymodalError
from anymodal.mlflow_store import connect
from anymodal.params import TrackingParams
from anymodal.pipeline_runs import PIPELINE, STAGE_TAG

PAIR_STAGES = ("translate", "retrieve")
"""Stages with a run a pair of encoders; of each pair the newest run counts, for DVC leaves alone
the pairs that nothing changed for."""
HEADLINES: dict[str, tuple[str, ...]] = {
    PIPELINE: (
        "ndcg/mean", "macro_f1/MMT-zero-shot-*", "macro_f1/MMT-all-*", "macro_f1/SM?-*",
        "zero_shot_share/*",
    ),
    "translate": ("valid_loss/*", "epochs/mean"),
    "retrieve": ("ndcg/*", "ndcg_pca/mean", "ndcg_untranslated/mean", "ndcg_random/mean"),
    "classify": ("macro_f1/*", "valid_macro_f1/*", "zero_shot_share/*"),
}  # fmt: skip
"""Metrics that a comparison shows unless it is told which; of other stages all of them."""
HIGHER = ("macro_f1", "macro_f1_across", "macro_f1_within", "macro_f1_matched", "valid_macro_f1",
          "ndcg", "score")  # fmt: skip
"""Metrics (what stands before the slash) of which more is better."""
LOWER = ("valid_loss",)
MOST = 5000
"""Runs that are looked through at most."""


@dataclass(frozen=True)
class Run:
    """One run."""

    id: str
    name: str
    stage: str
    """Name of the stage; `pipeline` for a parent."""
    status: str
    started: datetime
    seconds: float | None
    """None while it runs."""
    commit: str
    """Empty outside of git."""
    dirty: bool
    dataset: str
    pairing: str
    params: dict[str, str]
    metrics: dict[str, float]

    @property
    def code(self) -> str:
        """The commit, shortened; `+` where files were changed since."""
        return self.commit[:7] + "+" * self.dirty

    @property
    def pair(self) -> str:
        """The pair of encoders; empty where the run has none."""
        return self.params.get("pair", self.params.get("best_pair", ""))


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: tuple[Run, ...]
    """Newest first."""
    differing: dict[str, tuple[str, ...]]
    """What is not the same for all: facts and parameters, a value a run, empty where unknown."""
    metrics: dict[str, tuple[float | None, ...]]
    """A value a run."""
    spreads: dict[str, tuple[float | None, ...]]
    """Standard deviation over the seeds, for each of the metrics."""
    best: dict[str, frozenset[int]]
    """Places of the best runs; no entry where more is neither better nor worse, where all are
    equal, and where the runs were measured on different data."""
    note: str
    """Why nothing is marked as best; empty where something may be."""

    def cell(self, metric: str, place: int) -> str:
        """A value as people read it: with its spread, and marked where it is the best."""
        value = self.metrics[metric][place]
        if value is None:
            return ""
        spread = self.spreads[metric][place]
        told = _number(value) + ("" if spread is None else f" ± {_number(spread)}")
        return told + " *" * (place in self.best.get(metric, ()))

    def records(self) -> list[dict[str, Any]]:
        """One flat record a run, for JSON and CSV; unrounded."""
        found = []
        for place, run in enumerate(self.runs):
            record: dict[str, Any] = {
                "run": run.id, "name": run.name, "started": run.started.isoformat(" ", "seconds"),
                "commit": run.commit, "dirty": run.dirty, "dataset": run.dataset,
                "pairing": run.pairing, "pair": run.pair,
            }  # fmt: skip
            record |= {n: v[place] for n, v in self.differing.items() if n not in record}
            for name, values in self.metrics.items():
                record[name] = values[place]
                if any(one is not None for one in self.spreads[name]):
                    record[spread_name(name)] = self.spreads[name][place]
            found.append(record)
        return found


def find(
    tracking: TrackingParams, stage: str | None = None, limit: int = 20, *, finished: bool = False
) -> list[Run]:
    """The newest runs of the project's experiment and of MLflow's default one, where `mlflow run`
    puts them unless it is told otherwise; newest first.

    `stage` is a stage's name, or `pipeline` for the parents; None for every run.
    """
    found = _search(tracking, stage)
    found = [run for run in found if run.status == "FINISHED" or not finished]
    if finished and stage in PAIR_STAGES:
        newest: dict[str, Run] = {}
        for run in found:
            newest.setdefault(run.pair, run)
        found = list(newest.values())
    return found[:limit]


def pick(tracking: TrackingParams, wanted: Sequence[str]) -> list[Run]:
    """The runs with these ids, or beginnings of ids, in this order."""
    there = _search(tracking, None)
    chosen: dict[str, Run] = {}
    for one in wanted:
        found = [run for run in there if run.id.startswith(one)] if one else []
        if not found:
            raise AnymodalError(f"no run {one!r}; `anymodal runs list` names them")
        if len(found) > 1:
            raise AnymodalError(f"{len(found)} runs begin with {one!r}; give more of the id")
        chosen[found[0].id] = found[0]
    return list(chosen.values())


def compare(runs: Sequence[Run], metrics: Sequence[str] = ()) -> Comparison:
    """Put runs of one kind side by side.

    `metrics` are patterns such as `macro_f1/*`; default: `HEADLINES`. Raises `AnymodalError` for no
    runs, for runs of different stages and for patterns that nothing matches.
    """
    if not runs:
        raise AnymodalError("no finished runs to compare; `anymodal runs list` tells what there is")
    stages = list(dict.fromkeys(run.stage for run in runs))
    if len(stages) > 1:
        raise AnymodalError(
            f"runs of {' and '.join(stages)} have nothing to compare; give runs of one stage, or "
            "pipelines"
        )
    known = list(dict.fromkeys(name for run in runs for name in sorted(run.metrics)))
    shown = _shown(known, metrics, stages[0])
    values = {name: tuple(run.metrics.get(name) for run in runs) for name in shown}
    spreads = {name: tuple(run.metrics.get(spread_name(name)) for run in runs) for name in shown}
    note = _incomparable(runs)
    best = {} if note else {n: b for n, v in values.items() if (b := _best(n, v))}
    return Comparison(tuple(runs), _differing(runs), values, spreads, best, note)


def spread_name(metric: str) -> str:
    """Name of the metric that holds a metric's standard deviation over the seeds."""
    what, slash, of = metric.partition("/")
    return f"{what}_sd{slash}{of}"


def existing_store(tracking: TrackingParams) -> Any:
    """mlflow with its store; asking for runs does not make a store where there is none."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():
        raise AnymodalError(f"no runs yet: there is no {file}; `anymodal run` makes it")
    return connect(tracking)


def _search(tracking: TrackingParams, stage: str | None) -> list[Run]:
    mlflow = existing_store(tracking)
    client = mlflow.MlflowClient()
    named = [client.get_experiment_by_name(_experiment_name(tracking)), client.get_experiment("0")]
    places = [one.experiment_id for one in named if one and one.lifecycle_stage == "active"]
    if named[0] is None:
        raise AnymodalError(
            f"no experiment {_experiment_name(tracking)!r} in {mlflow.get_tracking_uri()}; "
            "`anymodal run` makes it (tracking.experiment in params.yaml)"
        )
    wanted = f"tags.`{STAGE_TAG}` " + (f"= '{stage}'" if stage else "LIKE '%'")
    if stage and not stage.replace("-", "").isalnum():
        raise AnymodalError(f"{stage!r} is no stage's name")
    found: list[Run] = []
    token = None
    while len(found) < MOST:
        page = client.search_runs(
            places, wanted, max_results=1000, order_by=["start_time DESC"], page_token=token
        )
        found += [_read(one) for one in page]
        token = page.token
        if not token:
            break
    return found


def _experiment_name(tracking: TrackingParams) -> str:
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or tracking.experiment


def _read(found: Any) -> Run:
    tags, info = found.data.tags, found.info
    ended = info.end_time
    return Run(
        id=info.run_id,
        name=info.run_name or "",
        stage=tags.get(STAGE_TAG, ""),
        status=info.status,
        started=datetime.fromtimestamp(info.start_time / 1000),
        seconds=None if ended is None else (ended - info.start_time) / 1000,
        commit=tags.get("mlflow.source.git.commit", ""),
        dirty=tags.get("git.dirty") == "true",
        dataset=tags.get("dataset", ""),
        pairing=tags.get("pairing", ""),
        params=dict(found.data.params),
        metrics=dict(found.data.metrics),
    )


def _shown(known: Collection[str], asked: Sequence[str], stage: str) -> list[str]:
    patterns: Sequence[str] = asked or HEADLINES.get(stage, ("*",))
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in known if fnmatchcase(name, pattern)]
        if asked and not found:
            raise AnymodalError(
                f"no metric of these runs matches {pattern!r}; they have "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        chosen |= dict.fromkeys(found)
    spreads = {spread_name(name) for name in chosen}
    return [name for name in chosen if asked or name not in spreads]


def _differing(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    told = {
        "dataset": tuple(run.dataset for run in runs),
        "pairing": tuple(run.pairing for run in runs),
    }
    names = sorted({name for run in runs for name in run.params})
    told |= {name: tuple(run.params.get(name, "") for run in runs) for name in names}
    # what a run does not tell, an older version's perhaps, does not make it another
    return {name: values for name, values in told.items() if len({*values} - {""}) > 1}


def _incomparable(runs: Sequence[Run]) -> str:
    for what in ("dataset", "pairing", "classes"):
        values = {run.params.get(what) or getattr(run, what, "") for run in runs} - {""}
        if len(values) > 1:
            told = ", ".join(sorted(values))
            return f"nothing is marked as best: the runs differ in {what} ({told})"
    return ""


def _best(name: str, values: Sequence[float | None]) -> frozenset[int]:
    what = name.partition("/")[0]
    # runs are told apart by what is shown of them
    known = {place: round(value, 4) for place, value in enumerate(values) if value is not None}
    if what not in HIGHER + LOWER or len(set(known.values())) < 2:
        return frozenset()
    best = max(known.values()) if what in HIGHER else min(known.values())
    return frozenset(place for place, value in known.items() if value == best)


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
