"""`anymodal predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli import console
from anymodal.cli.context import PARAMS, ParamsFile
from anymodal.core.errors import AnymodalError

if TYPE_CHECKING:
    from anymodal.classifier.prediction import Prediction

_MOST_DRAWN = 50

ModelOption = Annotated[
    str, typer.Option(help="Folder or MLflow URI of a classifier; default: the project's.")
]


def predict(
    files: Annotated[list[Path], typer.Argument(help="Audio, images and videos, or folders.")],
    model: ModelOption = "",
    top: Annotated[int, typer.Option(min=1, help="Classes to show per file.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the timeline here: one row per window.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the timelines here (.png, .svg or .pdf).")
    ] = None,
    hop: Annotated[float, typer.Option(help="Seconds from one window to the next.")] = 1.0,
    windows: Annotated[
        int, typer.Option(min=1, help="Most windows per file; spread evenly over longer ones.")
    ] = 60,
    params: ParamsFile = PARAMS,
) -> None:
    """Name the instrument in audio, images and videos, or in all files of a folder.

    Files that cannot be read are reported on standard error and do not stop the others; the exit
    status is then 1, unless they were only found in a folder.
    """
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.classifier.prediction import timeline
    from anymodal.core.storage import write_text
    from anymodal.media.segmentation import Limits

    limits = Limits(windows=windows, hop_s=hop)
    paths = [file for path in files for file in (files_in(path) if path.is_dir() else [path])]
    if not paths:
        raise AnymodalError(f"no files in {', '.join(map(str, files))}")
    _check_plot(plot, len(paths))
    classifier = ModalityAgnosticClassifier.load(location_of(model, params))
    answers: list[Prediction] = []
    failures: list[tuple[Path, str]] = []
    for path in paths:
        try:
            answers += classifier.predict([path], limits)
        except AnymodalError as error:
            failures.append((path, str(error)))
    if csv is not None:
        write_text(csv, timeline(answers).to_csv(index=False))
    if plot is not None and answers:
        _draw(answers, plot)
    if as_json:
        failed = [{"item": str(path), "error": reason} for path, reason in failures]
        typer.echo(json.dumps([*(a.as_dict() for a in answers), *failed], indent=2))
    elif answers:
        shown = min(top, len(classifier.classes))
        console.table(
            f"{len(classifier.classes)} classes, chance {1 / len(classifier.classes):.2f}",
            ["file", "answer", "from", *(f"{n + 1}." for n in range(shown))],
            [
                (a.item, a.answer, _used(a), *(f"{name} {p:.2f}" for name, p in a.top(shown)))
                for a in answers
            ],
        )
        for written in filter(None, (csv, plot)):
            console.out.print(f"timeline: {written}")
    for _, reason in failures:
        console.err.print(f"error: {reason}")
    if any(path in files for path, _ in failures):
        raise typer.Exit(1)


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder and those below it, without hidden ones."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [f for f in files if not any(p.startswith(".") for p in f.relative_to(folder).parts)]


def location_of(model: str, params: Path) -> str | Path:
    """Return the location that `--model` names: by default the project's classifier."""
    from anymodal.core.workspace import Workspace

    return model or Workspace(params.parent).classifier


def _used(answer: Prediction) -> str:
    """What an answer uses, such as `audio and image, 8 s`."""
    last = answer.windows[-1]
    seconds = last.start_s + last.seconds
    used = "audio and image" if answer.modality == "both" else answer.modality
    return f"{used}, {seconds:.0f} s" if seconds >= 2 else used


def _check_plot(plot: Path | None, files: int) -> None:
    if plot is None:
        return
    if plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise AnymodalError(f"{plot}: a timeline is drawn as .png, .svg or .pdf")
    if files > _MOST_DRAWN:
        raise AnymodalError(
            f"{plot}: {files} timelines are too many for one page ({_MOST_DRAWN} at most); draw "
            "fewer files, or write them all with --csv"
        )


def _draw(answers: list[Prediction], path: Path) -> None:
    from anymodal.core.storage import atomic_path
    from anymodal.report.timeline_figure import timeline_figure

    with atomic_path(path) as temporary:
        timeline_figure(answers).savefig(temporary, dpi=150)
