"""The commands that make datasets: fetching AudioSet, and packing embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli.context import PARAMS, ParamsFile, context_of

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer()


@app.command()
def audioset(
    lists: Annotated[Path, typer.Argument(help="Folder of AudioSet's segment lists.")],
    out: Annotated[Path, typer.Argument(help="Folder to fetch into; a second run resumes there.")],
    local: Annotated[
        Path | None, typer.Option(help="Folder of videos to use instead of downloading.")
    ] = None,
    allow_short: Annotated[
        bool,
        typer.Option("--allow-short", help="Use what there is if a class or subset is short."),
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Draw the subsets, fetch nothing.")
    ] = False,
    replan: Annotated[
        bool, typer.Option("--replan", help="Draw again for other lists or parameters.")
    ] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Draw the three subsets from AudioSet's lists and fetch them; resumes where it stopped."""
    from anymodal.cli import console
    from anymodal.pipeline.acquire import acquire

    try:
        clips = acquire(
            context_of(params),
            lists,
            out,
            local=local,
            allow_short=allow_short,
            plan_only=plan_only,
            replan=replan,
            show=lambda title, table: console.table(title, list(table.columns), _cells(table)),
        )
    except KeyboardInterrupt:
        console.err.print(f"stopped; what was fetched is in {out}; the same command resumes")
        raise typer.Exit(130) from None
    if clips is None:
        console.out.print(f"{out}: plan written; the same command without --plan-only fetches it")
    else:
        counts = clips["subset"].value_counts()
        sizes = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
        console.out.print(f"{out}: {len(clips):,} clips ({sizes})")


@app.command()
def pack(
    media: Annotated[Path, typer.Argument(help="Folder of media: images/<class>, audio/<class>.")],
    out: Annotated[Path, typer.Argument(help="Folder to write the pack to.")] = Path("data"),
    name: Annotated[str, typer.Option(help="Name of the pack.")] = "pack",
    description: Annotated[str, typer.Option(help="A sentence that describes the media.")] = "",
    params: ParamsFile = PARAMS,
) -> None:
    """Build a feature pack: embeddings that travel without their media."""
    from anymodal.cli import console
    from anymodal.embeddings.packing import build_pack

    context = context_of(params)
    settings = context.params.embed
    with context.progress("pack") as advance:
        info = build_pack(
            media,
            out,
            settings.encoders,
            context.params.dataset.windows,
            name,
            progress=lambda _step, done, total: advance(done, total),
            batch_size=settings.batch_size,
            workers=settings.workers,
            chunk=settings.chunk,
            description=description,
        )
    for skipped in info.skipped:
        console.err.print(f"skipped {skipped.path}: {skipped.reason}")
    counts = info.counts
    console.out.print(
        f"{out}: {counts['clips']} clips ({counts['audio']['clips']} audio, "
        f"{counts['image']['clips']} images), {len(info.encoders)} encoders"
    )


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """A table's values as text: with thousands separators, empty for null."""
    import pandas as pd

    def cell(value: object) -> str:
        if pd.isna(value):  # type: ignore[call-overload]
            return ""
        return f"{value:,}" if isinstance(value, (int, float)) else str(value)

    return [[cell(value) for value in row] for row in table.astype(object).to_numpy()]
