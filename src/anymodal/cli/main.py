"""The command line: one command a stage, and what runs, searches, compares and uses them.

Each command imports what it needs when it is called, so that `anymodal --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from anymodal import (
    __version__,
    cli_app,
    cli_data,
    cli_export,
    cli_predict,
    cli_runs,
    cli_search,
    cli_serve,
    cli_stages,
    cli_tune,
    cli_weights,
)
from anymodal.cli_context import PARAMS, ParamsFile, context_of, print_scores
from anymodal.errors import AnymodalError

app = typer.Typer(
    name="anymodal",
    help="Music classifiers that take whatever modality is at hand.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(cli_stages.app)
app.add_typer(cli_data.app)
app.add_typer(cli_weights.app, name="weights")
app.add_typer(cli_runs.app, name="runs")
app.command()(cli_tune.tune)
app.command()(cli_predict.predict)
app.command()(cli_export.export)
app.command()(cli_serve.serve)
app.command()(cli_app.app)
app.command()(cli_search.index)
app.command()(cli_search.search)


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
    from anymodal.pipeline import run_pipeline

    overrides = [word for words in set_ for word in words.split()]
    run_pipeline(params.parent, until or None, overrides)


@app.command()
def results(params: ParamsFile = PARAMS) -> None:
    """Print the table of results and where the report lies."""
    from anymodal import console

    context = context_of(params)
    print_scores(context)
    console.out.print(f"report: {context.workspace.report}")


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
