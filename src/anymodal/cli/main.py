"""The command line.

Each command imports what it needs when it is called, so that `anymodal --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from anymodal import __version__
from anymodal.cli import app as web
from anymodal.cli import console, data, export, predict, runs, search, serve, stages, tune, weights
from anymodal.cli.context import PARAMS, ParamsFile, context_of, print_scores
from anymodal.core.errors import AnymodalError

app = typer.Typer(
    name="anymodal",
    help="Music classifiers that take whatever modality is at hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(stages.app)
app.add_typer(data.app)
app.add_typer(weights.app, name="weights")
app.add_typer(runs.app, name="runs")
app.command()(tune.tune)
app.command()(predict.predict)
app.command()(export.export)
app.command()(serve.serve)
app.command()(web.app)
app.command()(search.index)
app.command()(search.search)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Music classifiers that take whatever modality is at hand."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    until: Annotated[str, typer.Argument(help="Stage to stop after; default: all.")] = "",
    set_: Annotated[
        list[str], typer.Option("--set", help="section.field=value; makes a DVC experiment.")
    ] = [],  # noqa: B006
    params: ParamsFile = PARAMS,
) -> None:
    """Run the pipeline with DVC under one parent MLflow run."""
    from anymodal.pipeline.runner import run_pipeline

    overrides = [word for words in set_ for word in words.split()]
    run_pipeline(params.parent, until or None, overrides)


@app.command()
def results(params: ParamsFile = PARAMS) -> None:
    """Print the classifiers' scores and the path of the report."""
    from anymodal.evaluation.classification import ClassificationResult

    workspace = context_of(params).workspace
    print_scores(ClassificationResult.read(workspace.classification, "classify"))
    console.out.print(f"report: {workspace.report}")


def main() -> None:
    """Entry point: an `AnymodalError` becomes one line and exit status 1."""
    # threads that spin while they wait bring two processes on one machine to a crawl (measured: a
    # training of 4 s took 30); OpenMP reads this when torch loads it
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except AnymodalError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
