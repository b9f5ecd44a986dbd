"""The command line: one command a stage, and what runs, searches, compares and uses them.

Each command imports what it needs when it is called, so that `anymodal --help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from anymodal import __version__, cli_data, cli_runs, cli_stages, cli_tune, cli_weights
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


@app.command()
def predict(
    files: Annotated[list[Path], typer.Argument(help="Sounds and pictures, mixed.")],
    model: Annotated[
        str, typer.Option(help="Folder or MLflow URI of a classifier; default: the project's.")
    ] = "",
    top: Annotated[int, typer.Option(min=1, help="Classes to show a file.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Name the instrument in sounds and pictures.

    A file that cannot be read is told on the error output and does not stop the others; the exit
    status is then 1.
    """
    from anymodal import console
    from anymodal.model import ModalityAgnosticClassifier
    from anymodal.workspace import Workspace

    location = model or Workspace(params.parent).classifier
    classifier = ModalityAgnosticClassifier.load(location)
    answers, failures = [], []
    for file in files:
        try:
            answers += classifier.predict([file])
        except AnymodalError as error:
            failures.append({"item": str(file), "error": str(error)})
    if as_json:
        typer.echo(json.dumps([*(a.as_dict() for a in answers), *failures], indent=2))
    elif answers:
        console.table(
            f"{len(classifier.classes)} classes, chance {1 / len(classifier.classes):.2f}",
            ["file", "modality", *(f"{n + 1}." for n in range(min(top, len(classifier.classes))))],
            [(a.item, a.modality, *(f"{name} {p:.2f}" for name, p in a.top(top))) for a in answers],
        )
    for failure in failures:
        console.err.print(f"error: {failure['error']}")
    if failures:
        raise typer.Exit(1)


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
