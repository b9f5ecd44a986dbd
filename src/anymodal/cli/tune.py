"""The command `anymodal tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli_context import PARAMS, ParamsFile, context_of

if TYPE_CHECKING:
    from anymodal.stages.tune import Verdict


def tune(
    what: Annotated[
        str, typer.Option(help="translation, forest or both; default: tune.what.")
    ] = "",
    trials: Annotated[
        int, typer.Option(min=0, help="Trials of a study in all; 0: tune.trials.")
    ] = 0,
    audio: Annotated[str, typer.Option("--audio", help="Audio encoder; default: selected.")] = "",
    image: Annotated[str, typer.Option("--image", help="Image encoder; default: selected.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Leave params.yaml and the registry as they are.")
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Search for better parameters on validation data; resumes, and shares its study.

    Where the best are better by more than the noise, they are written into params.yaml.
    """
    from anymodal import console
    from anymodal.stages.tune import tune as stage

    verdicts = stage(
        context_of(params), params, what or None, trials or None, audio, image, dry_run
    )
    for verdict in verdicts:
        _tell(verdict, dry_run, params)
    if any(verdict.written for verdict in verdicts):
        console.out.print("`anymodal run` brings the results up to date")


def _tell(verdict: Verdict, dry_run: bool, params: Path) -> None:
    from anymodal import console

    console.out.print(
        f"{verdict.what}, {verdict.pair}: {verdict.trials} trials, {verdict.pruned} pruned, "
        f"best: {'none' if verdict.best is None else f'trial {verdict.best}'}"
    )
    if verdict.changes:
        console.table(
            "Best trial's parameters",
            ["parameter", "in use", "best"],
            [(name, _said(old), _said(new)) for name, (old, new) in verdict.changes.items()],
        )
    console.out.print(verdict.reason)
    if verdict.written:
        told = f", registered as version {verdict.version}" if verdict.version else ""
        console.out.print(f"written to {params}{told}:")
        for name, (old, new) in verdict.changes.items():
            console.out.print(f"  {name}: {_said(old)} → {_said(new)}")
    elif verdict.wins and dry_run:
        console.out.print(f"{params} is left as it is: --dry-run")
    else:
        console.out.print(f"{params} is left as it is")


def _said(value: object) -> str:
    return "null" if value is None else str(value)
