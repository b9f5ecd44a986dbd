"""`anymodal index` and `anymodal search`: what in a folder of media is nearest to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anymodal.cli.context import PARAMS, ParamsFile
from anymodal.cli.predict import ModelOption, location_of

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.search.updating import Report

SHOWN = 20
"""Skipped files that are named; all with --json."""

Place = Annotated[
    Path | None,
    typer.Option("--index", help="Folder of the index; default: the project's .anymodal/index."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def index(
    folder: Annotated[Path, typer.Argument(help="Folder of audio, images and videos.")],
    place: Place = None,
    model: ModelOption = "",
    ann: Annotated[
        bool | None,
        typer.Option(
            "--ann/--no-ann", help="Approximate search; default: as before, or if it is large."
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Start from nothing, also where an index is.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode ahead.")] = 2,
    as_json: AsJson = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Index a folder's media for `anymodal search`; of an index that is there, what changed.

    What is no medium or is broken is reported and skipped.
    """
    from dataclasses import asdict

    from anymodal.cli import console
    from anymodal.search import update

    report = update(
        folder,
        _place(place, params),
        _classifier(model, params),
        rebuild=rebuild,
        ann=ann,
        workers=workers,
        progress=console.progress,
    )
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        _print(report, _place(place, params))
    if report.note:
        console.err.print(report.note)


def search(
    query: Annotated[Path, typer.Argument(help="An audio file, an image or a video.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Answers.")] = 10,
    modality: Annotated[str | None, typer.Option(help="Only `audio` or only `image`.")] = None,
    by: Annotated[
        str, typer.Option(help="What of a video counts: `audio`, `image` or `both`.")
    ] = "both",
    exactly: Annotated[
        bool, typer.Option("--exact", help="Exact search, also where there is a graph.")
    ] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write the answers to a CSV file.")
    ] = None,
    place: Place = None,
    model: ModelOption = "",
    as_json: AsJson = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Find what is nearest to an audio file, an image or a video, across modalities."""
    from anymodal.cli import console
    from anymodal.search import Index

    opened = Index.open(_place(place, params))
    hits = opened.find(_classifier(model, params), query, k, modality, by, exactly)  # type: ignore[arg-type]
    rows = [
        {
            "rank": hit.rank,
            "cosine": round(hit.cosine, 6),
            "path": hit.path,
            "modality": hit.modality,
            "kind": hit.kind,
            "seconds": round(hit.seconds, 3),
        }
        for hit in hits
    ]
    if csv_file is not None:
        _write_csv(csv_file, rows)
    if as_json:
        answers = {"query": str(query), "root": str(opened.root), "answers": rows}
        typer.echo(json.dumps(answers, indent=2))
    elif csv_file is None:
        console.table(
            f"Nearest to {query} of {len(opened):,} rows in {opened.root}",
            ["rank", "cosine", "path", "modality"],
            [(r["rank"], f"{r['cosine']:.3f}", r["path"], r["modality"]) for r in rows],
        )


def _place(place: Path | None, params: Path) -> Path:
    from anymodal.core.workspace import Workspace

    return place or Workspace(params.parent).scratch / "index"


def _classifier(model: str, params: Path) -> ModalityAgnosticClassifier:
    from anymodal.classifier.model import ModalityAgnosticClassifier

    return ModalityAgnosticClassifier.load(location_of(model, params))


def _print(report: Report, place: Path) -> None:
    from anymodal.cli import console

    for path, why in list(report.skipped.items())[:SHOWN]:
        console.err.print(f"skipped: {path}: {why}")
    if len(report.skipped) > SHOWN:
        console.err.print(f"and {len(report.skipped) - SHOWN:,} more; --json names them all")
    counts = ("added", "changed", "renamed", "touched", "removed", "unchanged")
    files = [f"{getattr(report, name):,} {name}" for name in counts if getattr(report, name)]
    console.out.print(f"files: {', '.join([*files, f'{len(report.skipped):,} skipped'])}")
    rows = ", ".join(f"{count:,} {modality}" for modality, count in report.rows.items())
    console.out.print(f"rows: {rows} in {place}")
    for modality, graph in report.graphs.items():
        recalls = ", ".join(
            f"{recall:.3f} of {of} queries ({graph.queries[of]:,})"
            for of, recall in graph.recall.items()
        )
        console.out.print(f"approximate search of {modality}: recall@{graph.k} {recalls}")


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import csv
    import io

    from anymodal.core.storage import write_text

    text = io.StringIO()
    names = ("rank", "cosine", "path", "modality", "kind", "seconds")
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())
