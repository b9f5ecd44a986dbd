"""The command `anymodal tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli import console
from anymodal.cli.context import PARAMS, ParamsFile, context_of

if TYPE_CHECKING:
    from anymodal.tuning.tune import TuningResult


def tune(
    what: Annotated[
        str, typer.Option(help="translation, forest or both; default: tune.what.")
    ] = "",
    trials: Annotated[
        int, typer.Option(min=0, help="Total trials of a study; 0: tune.trials.")
    ] = 0,
    audio: Annotated[str, typer.Option("--audio", help="Audio encoder; default: selected.")] = "",
    image: Annotated[str, typer.Option("--image", help="Image encoder; default: selected.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do not change params.yaml and the registry.")
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Search for better parameters on validation data; resumes, and shares its study.

    Where the best are better by more than the noise, they are written into params.yaml.
    """
    from anymodal.tuning.tune import tune as stage

    results = stage(context_of(params), params, what or None, trials or None, audio, image, dry_run)
    for result in results:
        _print(result, dry_run, params)
    if any(result.written for result in results):
        console.out.print("`anymodal run` brings the results up to date")


def _print(result: TuningResult, dry_run: bool, params: Path) -> None:

    console.out.print(
        f"{result.what}, {result.pair}: {result.trials} trials, {result.pruned} pruned, "
        f"best: {'none' if result.best is None else f'trial {result.best}'}"
    )
    if result.changes:
        console.table(
            "Best trial's parameters",
            ["parameter", "in use", "best"],
            [(name, _shown(old), _shown(new)) for name, (old, new) in result.changes.items()],
        )
    console.out.print(result.reason)
    if result.written:
        registered = f", registered as version {result.version}" if result.version else ""
        console.out.print(f"written to {params}{registered}:")
        for name, (old, new) in result.changes.items():
            console.out.print(f"  {name}: {_shown(old)} → {_shown(new)}")
    elif result.wins and dry_run:
        console.out.print(f"{params} is unchanged: --dry-run")
    else:
        console.out.print(f"{params} is unchanged")


def _shown(value: object) -> str:
    return "null" if value is None else str(value)
