"""`anymodal runs`: MLflow's runs and models in the terminal."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli import console
from anymodal.cli.context import PARAMS, ParamsFile
from anymodal.core.errors import AnymodalError

if TYPE_CHECKING:
    from anymodal.config.params import TrackingParams
    from anymodal.tracking.comparison import Comparison, Run

app = typer.Typer(
    help="List and compare MLflow's runs; print model cards.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Stage = Annotated[str, typer.Option(help="Runs of this stage.")]


@app.command("list")
def list_(
    stage: Stage = "",
    pipelines: Annotated[bool, typer.Option("--pipelines", help="Pipelines only.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Runs to list.")] = 20,
    as_json: AsJson = False,
    params: ParamsFile = PARAMS,
) -> None:
    """List runs, newest first."""
    from anymodal.tracking.comparison import find

    runs = find(_tracking(params), _kind(stage, pipelines) or None, limit)
    if as_json:
        typer.echo(json.dumps([_facts(run) for run in runs], indent=2))
        return
    if not runs:
        raise AnymodalError(f"no runs{f' of {stage}' if stage else ''}")
    console.table(
        "Runs",
        ["run", "name", "status", "started", "time", "dataset", "code"],
        [
            (
                run.id[:8],
                run.name,
                run.status.lower(),
                f"{run.started:%Y-%m-%d %H:%M}",
                _duration(run.seconds),
                f"{run.dataset} ({run.pairing})" if run.dataset else "",
                run.code,
            )
            for run in runs
        ],
    )


@app.command()
def compare(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Run ids, or beginnings of them.")
    ] = None,
    stage: Stage = "",
    pipelines: Annotated[bool, typer.Option("--pipelines", help="Pipelines; the default.")] = False,
    metric: Annotated[
        list[str] | None, typer.Option(help="Metrics, such as `macro_f1/*`; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs to compare, newest first.")] = 6,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Compare runs: what differs between them, and their metrics, the best ones marked.

    Without ids: the newest pipelines; with --stage translate or retrieve the newest run of every
    pair of encoders, with another stage its newest runs.
    """
    from anymodal.tracking import comparison

    if runs and (stage or pipelines):
        raise AnymodalError("give runs, or --stage, or --pipelines")
    if as_json and as_csv:
        raise AnymodalError("give --json or --csv, not both")
    tracking = _tracking(params)
    kind = _kind(stage, pipelines) or comparison.PIPELINE
    if runs:
        chosen = comparison.pick(tracking, runs)
    else:
        chosen = comparison.find(tracking, kind, limit, finished=True)
    compared = comparison.compare(chosen, metric or ())
    if as_json:
        typer.echo(json.dumps(compared.records(), indent=2))
    elif as_csv:
        records = compared.records()
        writer = csv.DictWriter(sys.stdout, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    else:
        _print(compared)


@app.command()
def card(
    model: Annotated[
        str, typer.Argument(help="Registered model: anymodal-classifier or anymodal-translation.")
    ] = "anymodal-classifier",
    version: Annotated[str, typer.Option(help="Its version; default: the champion.")] = "",
    params: ParamsFile = PARAMS,
) -> None:
    """Print the model card of a registered version."""
    from anymodal.tracking.comparison import existing_store
    from anymodal.tracking.registered_models import read_card

    tracking = _tracking(params)
    existing_store(tracking)
    typer.echo(read_card(tracking, model, version).rstrip())


def _tracking(path: Path) -> TrackingParams:
    from anymodal.config.params import load_params

    return load_params(path).tracking


def _kind(stage: str, pipelines: bool) -> str:
    if stage and pipelines:
        raise AnymodalError("give --stage or --pipelines, not both")
    return "pipeline" if pipelines else stage


def _print(comparison: Comparison) -> None:
    """One line per run where they fit into the terminal, else one line per metric."""
    from anymodal.tracking.comparison import PAIR_STAGES

    runs = comparison.runs
    # pipelines differ by the hour, runs of pairs by their names
    clock = "%Y-%m-%d" if runs[0].stage in PAIR_STAGES else "%Y-%m-%d %H:%M"
    facts = {
        "started": [run.started.strftime(clock) for run in runs],
        "code": [run.code for run in runs],
        "pair": [run.pair for run in runs],
        **{name: list(values) for name, values in comparison.differing.items()},
    }
    for name in ("best_pair", "audio_encoder", "image_encoder"):  # the pair has them
        facts.pop(name, None)
    same = [runs[0].dataset] if "dataset" not in facts else []
    same += [f"{runs[0].pairing}-paired"] if "pairing" not in facts and runs[0].pairing else []
    if len(runs) > 1:
        same += [values[0] for values in facts.values() if len(set(values)) == 1]
        facts = {name: values for name, values in facts.items() if len(set(values)) > 1}
    title = ", ".join([runs[0].stage, *(word for word in same if word)])
    lines = [["run", *(run.id[:8] for run in runs)]]
    lines += [[name, *values] for name, values in facts.items()]
    for name in comparison.metrics:
        lines.append([name, *(comparison.cell(name, place) for place in range(len(runs)))])
    width = sum(max(map(len, column)) + 3 for column in lines) + 1
    if not sys.stdout.isatty() or width <= console.out.width:
        lines = [list(row) for row in zip(*lines, strict=True)]
    console.table(title, lines[0], lines[1:])
    if comparison.best:
        console.out.print(
            "* the best of its metric; ± is the standard deviation over one run's seeds"
        )
    if comparison.note:
        console.out.print(comparison.note)


def _facts(run: Run) -> dict[str, object]:
    return {
        "run": run.id, "name": run.name, "stage": run.stage, "status": run.status,
        "started": run.started.isoformat(" ", "seconds"), "seconds": run.seconds,
        "dataset": run.dataset, "pairing": run.pairing, "pair": run.pair,
        "commit": run.commit, "dirty": run.dirty,
    }  # fmt: skip


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
