"""`anymodal weights`: what is here of the encoders' weights, and how to get the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli.context import PARAMS, ParamsFile
from anymodal.core.errors import AnymodalError

if TYPE_CHECKING:
    from anymodal.encoders.weights.inventory import Outcome

app = typer.Typer(
    help="Weights of the encoders: list, fetch, verify.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Names = Annotated[list[str] | None, typer.Argument(help="Encoders; default: all.")]


@app.command("list")
def list_(
    names: Names = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with URLs.")] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """List encoders and the state of their weights."""
    from anymodal.cli import console
    from anymodal.encoders import registry
    from anymodal.encoders.weights import locations
    from anymodal.encoders.weights.inventory import survey

    _apply(params)
    holdings = survey(names or registry.names())
    if as_json:
        rows = [
            {
                **{f: getattr(h.info, f) for f in ("name", "modality", "dim", "parameters")},
                **{f: getattr(h.info, f) for f in ("pooling", "licence", "extra", "summary")},
                "urls": [file.url for file in h.info.files],
                **{f: getattr(h, f) for f in ("source", "state", "ready", "size", "checksum")},
            }
            for h in holdings
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    folders = {"<cache>": locations.cache_dir(), "<weights folder>": locations.weights_dir()}

    def shortened(state: str) -> str:
        for mark, folder in folders.items():
            state = state.replace(str(folder), mark) if folder else state
        return state

    console.table(
        "Encoders",
        ["name", "modality", "dim", "parameters", "weights from", "state", "size", "checksum"],
        [
            (
                h.info.name,
                h.info.modality,
                h.info.dim,
                _millions(h.info.parameters, ""),
                h.source,
                shortened(h.state),
                _millions(h.size, "B") if h.size is not None else _estimate(h.info.parameters),
                h.checksum,
            )
            for h in holdings
        ],
    )
    for mark, folder in folders.items():
        console.out.print(f"{mark}: {folder or 'none; ANYMODAL_WEIGHTS_DIR names one'}")


@app.command()
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Encoders; default: those of the parameters file.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All registered encoders.")] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Obtain the weights of encoders, for use with no network."""
    from anymodal.cli import console
    from anymodal.config.params import load_params
    from anymodal.encoders import registry
    from anymodal.encoders.weights.inventory import fetch as obtain

    if names and all_:
        raise AnymodalError("give names or --all, not both")
    _apply(params)
    wanted = registry.names() if all_ else names or load_params(params).encoders
    wanted = list(dict.fromkeys(wanted))
    failed = _print(obtain(wanted))
    console.out.print(f"{len(wanted) - len(failed)} of {len(wanted)} encoders fetched")
    if failed:
        raise typer.Exit(1)


@app.command()
def verify(names: Names = None, params: ParamsFile = PARAMS) -> None:
    """Hash what is here, against pinned and recorded checksums."""
    from anymodal.cli import console
    from anymodal.encoders import registry
    from anymodal.encoders.weights.inventory import verify as check

    _apply(params)
    wanted = list(dict.fromkeys(names or registry.names()))
    outcomes = list(check(wanted))
    wrong = _print(outcomes)
    absent = [name for name in wanted if name not in {outcome.name for outcome in outcomes}]
    if absent:
        console.out.print(f"no weights here for {', '.join(absent)}")
    console.out.print(f"{len(outcomes)} checked, {len(wrong)} wrong")
    if wrong:
        raise typer.Exit(1)


def _apply(params: Path) -> None:
    """Take the weights folder of a project, if this is one."""
    if params == PARAMS and not params.exists():
        return
    from anymodal.config.params import load_params
    from anymodal.encoders.weights.locations import use_weights_dir

    use_weights_dir(load_params(params).embed.weights_dir, params.parent)


def _print(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Print outcomes as they come; those that failed."""
    from anymodal.cli import console

    failed = []
    for outcome in outcomes:
        if outcome.ok:
            console.out.print(f"{outcome.name}: {outcome.message}")
        else:
            failed.append(outcome)
            console.err.print(f"error: {outcome.name}: {outcome.message}")
    return failed


def _millions(count: int | None, unit: str) -> str:
    return f"{count / 1e6:.1f} M{unit}" if count else ""


def _estimate(parameters: int) -> str:
    """Size of float32 weights that are not here yet."""
    return f"about {4 * parameters / 1e6:.0f} MB" if parameters else ""
