"""MLflow's runs as tables: a list of them, and several side by side."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from anymodal.config.params import TrackingParams
from anymodal.core.errors import AnymodalError
from anymodal.tracking.pipeline_runs import PIPELINE, STAGE_TAG
from anymodal.tracking.store import connect, experiment_name

PAIR_STAGES = ("translate", "retrieve")
"""Stages with one run per pair of encoders. Of each pair the newest run counts: DVC does not rerun
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
"""Metrics that a comparison shows by default; of other stages all of them."""
HIGHER = (
    "macro_f1", "macro_f1_cross_source", "macro_f1_within", "macro_f1_size_matched",
    "valid_macro_f1", "ndcg", "score",
)  # fmt: skip
"""Metrics, by what stands before the slash, of which more is better."""
LOWER = ("valid_loss",)
MOST = 5000
"""Most runs that are searched."""


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
    """None for a running one."""
    commit: str
    """Empty outside of git."""
    dirty: bool
    dataset: str
    pairing: str
    params: dict[str, str]
    metrics: dict[str, float]

    @property
    def code(self) -> str:
        """The commit, shortened; `+` with uncommitted changes."""
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
    """Facts and parameters that are not the same for all: one value per run, "" where unknown."""
    metrics: dict[str, tuple[float | None, ...]]
    """One value per run."""
    spreads: dict[str, tuple[float | None, ...]]
    """Standard deviation over the seeds, for each of the metrics."""
    best: dict[str, frozenset[int]]
    """Places of the best runs; no entry where there is no better or worse, or all are equal."""
    note: str
    """Why nothing is marked as best, or ""."""

    def cell(self, metric: str, place: int) -> str:
        """A value with its spread, and `*` where it is the best."""
        value = self.metrics[metric][place]
        if value is None:
            return ""
        spread = self.spreads[metric][place]
        text = _number(value) + ("" if spread is None else f" ± {_number(spread)}")
        return text + " *" * (place in self.best.get(metric, ()))

    def records(self) -> list[dict[str, Any]]:
        """One flat record per run, for JSON and CSV; unrounded."""
        records = []
        for place, run in enumerate(self.runs):
            record: dict[str, Any] = {
                "run": run.id, "name": run.name, "started": run.started.isoformat(" ", "seconds"),
                "commit": run.commit, "dirty": run.dirty, "dataset": run.dataset,
                "pairing": run.pairing, "pair": run.pair,
            }  # fmt: skip
            record |= {n: v[place] for n, v in self.differing.items() if n not in record}
            for name, values in self.metrics.items():
                record[name] = values[place]
                if any(spread is not None for spread in self.spreads[name]):
                    record[spread_name(name)] = self.spreads[name][place]
            records.append(record)
        return records


def find(
    tracking: TrackingParams, stage: str | None = None, limit: int = 20, *, finished: bool = False
) -> list[Run]:
    """The newest runs of the project's experiment, and of MLflow's default one, where `mlflow run`
    puts them; newest first.

    `stage` is a stage's name, or `pipeline` for the parents; None: every run.
    """
    runs = _search(tracking, stage)
    runs = [run for run in runs if run.status == "FINISHED" or not finished]
    if finished and stage in PAIR_STAGES:
        newest: dict[str, Run] = {}
        for run in runs:
            newest.setdefault(run.pair, run)
        runs = list(newest.values())
    return runs[:limit]


def pick(tracking: TrackingParams, wanted: Sequence[str]) -> list[Run]:
    """The runs with these ids, or beginnings of ids, in this order."""
    runs = _search(tracking, None)
    chosen: dict[str, Run] = {}
    for prefix in wanted:
        matching = [run for run in runs if run.id.startswith(prefix)] if prefix else []
        if not matching:
            raise AnymodalError(f"no run {prefix!r}; `anymodal runs list` lists them")
        if len(matching) > 1:
            raise AnymodalError(f"{len(matching)} runs begin with {prefix!r}; give more of the id")
        chosen[matching[0].id] = matching[0]
    return list(chosen.values())


def compare(runs: Sequence[Run], metrics: Sequence[str] = ()) -> Comparison:
    """Put runs of one stage side by side.

    `metrics` are patterns such as `macro_f1/*`; default: `HEADLINES`. Raises `AnymodalError` for no
    runs, runs of different stages, and patterns without a match.
    """
    if not runs:
        raise AnymodalError("no finished runs to compare; `anymodal runs list` lists all")
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
    """mlflow with its store, which must exist."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri
    file = uri.removeprefix("sqlite:///")
    if file != uri and not Path(file).is_file():
        raise AnymodalError(f"no runs yet: there is no {file}; `anymodal run` makes it")
    return connect(tracking)


def _search(tracking: TrackingParams, stage: str | None) -> list[Run]:
    mlflow = existing_store(tracking)
    client, name = mlflow.MlflowClient(), experiment_name(tracking)
    named = [client.get_experiment_by_name(name), client.get_experiment("0")]
    places = [each.experiment_id for each in named if each and each.lifecycle_stage == "active"]
    if named[0] is None:
        raise AnymodalError(
            f"no experiment {name!r} in {mlflow.get_tracking_uri()}; "
            "`anymodal run` makes it (tracking.experiment in params.yaml)"
        )
    wanted = f"tags.`{STAGE_TAG}` " + (f"= '{stage}'" if stage else "LIKE '%'")
    if stage and not stage.replace("-", "").replace("_", "").isalnum():
        raise AnymodalError(f"{stage!r} is not the name of a stage")
    runs = mlflow.search_runs(
        places, wanted, max_results=MOST, order_by=["start_time DESC"], output_format="list"
    )
    return [_read(run) for run in runs]


def _read(run: Any) -> Run:
    tags, info = run.data.tags, run.info
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
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
    )


def _shown(known: Collection[str], asked: Sequence[str], stage: str) -> list[str]:
    patterns: Sequence[str] = asked or HEADLINES.get(stage, ("*",))
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in known if fnmatchcase(name, pattern)]
        if asked and not matching:
            raise AnymodalError(
                f"no metric of these runs matches {pattern!r}; they have "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        chosen |= dict.fromkeys(matching)
    spreads = {spread_name(name) for name in chosen}
    return [name for name in chosen if asked or name not in spreads]


def _differing(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    facts = {
        "dataset": tuple(run.dataset for run in runs),
        "pairing": tuple(run.pairing for run in runs),
    }
    names = sorted({name for run in runs for name in run.params})
    facts |= {name: tuple(run.params.get(name, "") for run in runs) for name in names}
    # a value that a run lacks, an older version's perhaps, is no difference
    return {name: values for name, values in facts.items() if len({*values} - {""}) > 1}


def _incomparable(runs: Sequence[Run]) -> str:
    for what in ("dataset", "pairing", "classes"):
        values = {run.params.get(what) or getattr(run, what, "") for run in runs} - {""}
        if len(values) > 1:
            listed = ", ".join(sorted(values))
            return f"nothing is marked as best: the runs differ in {what} ({listed})"
    return ""


def _best(name: str, values: Sequence[float | None]) -> frozenset[int]:
    what = name.partition("/")[0]
    # as shown
    known = {place: round(value, 4) for place, value in enumerate(values) if value is not None}
    if what not in HIGHER + LOWER or len(set(known.values())) < 2:
        return frozenset()
    best = max(known.values()) if what in HIGHER else min(known.values())
    return frozenset(place for place, value in known.items() if value == best)


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
