"""`anymodal runs`: MLflow's runs and models in the terminal."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli_context import PARAMS, ParamsFile
from anymodal.errors import AnymodalError

if TYPE_CHECKING:
    from anymodal.params import TrackingParams
    from anymodal.run_table import Comparison, Run

app = typer.Typer(
    help="MLflow's runs: list, compare; the models' cards.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Stage = Annotated[str, typer.Option(help="Runs of this stage.")]


@app.command("list")
def list_(
    stage: Stage = "",
    pipelines: Annotated[bool, typer.Option("--pipelines", help="Pipelines alone.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Runs to list.")] = 20,
    as_json: AsJson = False,
    params: ParamsFile = PARAMS,
) -> None:
    """List runs, newest first."""
    from anymodal import console
    from anymodal.run_table import find

    found = find(_tracking(params), _kind(stage, pipelines) or None, limit)
    if as_json:
        typer.echo(json.dumps([_facts(run) for run in found], indent=2))
        return
    if not found:
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
            for run in found
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
    """Compare runs: what differs between them, and their metrics, the best marked.

    Without ids: the newest pipelines; with --stage translate or retrieve the newest run of every
    pair of encoders, with another stage its newest runs.
    """
    from anymodal import run_table

    if runs and (stage or pipelines):
        raise AnymodalError("give runs, or --stage, or --pipelines")
    if as_json and as_csv:
        raise AnymodalError("give --json or --csv, not both")
    tracking = _tracking(params)
    kind = _kind(stage, pipelines) or run_table.PIPELINE
    if runs:
        found = run_table.pick(tracking, runs)
    else:
        found = run_table.find(tracking, kind, limit, finished=True)
    told = run_table.compare(found, metric or ())
    if as_json:
        typer.echo(json.dumps(told.records(), indent=2))
    elif as_csv:
        records = told.records()
        writer = csv.DictWriter(sys.stdout, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    else:
        _print(told)


@app.command()
def card(
    model: Annotated[
        str, typer.Argument(help="Registered model: anymodal-classifier or anymodal-translation.")
    ] = "anymodal-classifier",
    version: Annotated[str, typer.Option(help="Its version; default: the champion.")] = "",
    params: ParamsFile = PARAMS,
) -> None:
    """Print the model card of a registered version."""
    from anymodal.registered_models import read_card
    from anymodal.run_table import existing_store

    tracking = _tracking(params)
    existing_store(tracking)
    typer.echo(read_card(tracking, model, version).rstrip())


def _tracking(path: Path) -> TrackingParams:
    from anymodal.params import load_params

    return load_params(path).tracking


def _kind(stage: str, pipelines: bool) -> str:
    if stage and pipelines:
        raise AnymodalError("give --stage or --pipelines, not both")
    return "pipeline" if pipelines else stage


def _print(told: Comparison) -> None:
    """A line a run where that has room, else a line a metric: few runs have many metrics."""
    from anymodal import console
    from anymodal.run_table import PAIR_STAGES

    runs = told.runs
    # the hour tells pipelines apart, of pairs the names do
    clock = "%Y-%m-%d" if runs[0].stage in PAIR_STAGES else "%Y-%m-%d %H:%M"
    facts = {
        "started": [run.started.strftime(clock) for run in runs],
        "code": [run.code for run in runs],
        "pair": [run.pair for run in runs],
        **{name: list(values) for name, values in told.differing.items()},
    }
    # told by the pair
    for name in ("best_pair", "audio_encoder", "image_encoder"):
        facts.pop(name, None)
    same = [runs[0].dataset] if "dataset" not in facts else []
    same += [f"{runs[0].pairing}-paired"] if "pairing" not in facts and runs[0].pairing else []
    if len(runs) > 1:
        same += [values[0] for values in facts.values() if len(set(values)) == 1]
        facts = {name: values for name, values in facts.items() if len(set(values)) > 1}
    title = ", ".join([runs[0].stage, *(word for word in same if word)])
    lines = [[name, *map(_folded, values)] for name, values in facts.items()]
    lines += [[name, *(told.cell(name, i) for i in range(len(runs)))] for name in told.metrics]
    # a name is cut where it is put together
    lines = [[name.replace("/", "/\n").replace(".", ".\n"), *values] for name, *values in lines]
    heads = ["run", *(run.id[:8] for run in runs)]
    columns = [heads, *lines]
    if sum(map(_width, columns)) + 3 * len(columns) + 1 <= console.out.width:
        turned = [list(row) for row in zip(*columns, strict=True)]
        console.table(title, turned[0], turned[1:])
    else:
        lines = [[name.replace("\n", ""), *values] for name, *values in lines]
        console.table(title, heads, lines)
    if told.best:
        console.out.print(
            "* the best of its metric; ± is the spread of one run's seeds, and what lies within it "
            "may be chance"
        )
    if told.note:
        console.out.print(told.note)


def _folded(value: str) -> str:
    """A pair's name on two lines."""
    return value.replace("+", " +\n") if value.count("+") == 1 and value[-1] != "+" else value


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))


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
