"""`anymodal predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anymodal.cli_context import PARAMS, ParamsFile
from anymodal.errors import AnymodalError

if TYPE_CHECKING:
    from anymodal.prediction import Prediction

_MOST_DRAWN = 50

ModelOption = Annotated[
    str, typer.Option(help="Folder or MLflow URI of a classifier; default: the project's.")
]


def predict(
    files: Annotated[list[Path], typer.Argument(help="Sounds, pictures and films, mixed.")],
    model: ModelOption = "",
    top: Annotated[int, typer.Option(min=1, help="Classes to show a file.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the timeline here: a row a moment of every file.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the timelines here (.png, .svg or .pdf).")
    ] = None,
    hop: Annotated[float, typer.Option(help="Seconds from one moment to the next.")] = 1.0,
    moments: Annotated[
        int, typer.Option(min=1, help="Moments of a file to look at, at most; spread evenly.")
    ] = 60,
    params: ParamsFile = PARAMS,
) -> None:
    """Name the instrument in sounds, pictures and films; of a folder, in all that it holds.

    A file that cannot be read is told on the error output and does not stop the others; the exit
    status is then 1, unless the file was only found in a folder.
    """
    from anymodal import console
    from anymodal.items import Limits
    from anymodal.model import ModalityAgnosticClassifier
    from anymodal.prediction import timeline
    from anymodal.storage import write_text

    limits = Limits(moments=moments, hop_s=hop)
    found = _files_of(files)
    _check_plot(plot, len(found))
    classifier = ModalityAgnosticClassifier.load(location_of(model, params))
    answers, failures = [], []
    for file in found:
        try:
            answers += classifier.predict([file], limits)
        except AnymodalError as error:
            failures.append({"item": str(file), "error": str(error)})
    if csv is not None:
        write_text(csv, timeline(answers).to_csv(index=False))
    if plot is not None and answers:
        _draw(answers, plot)
    if as_json:
        typer.echo(json.dumps([*(a.as_dict() for a in answers), *failures], indent=2))
    elif answers:
        shown = min(top, len(classifier.classes))
        console.table(
            f"{len(classifier.classes)} classes, chance {1 / len(classifier.classes):.2f}",
            ["file", "answer", "from", *(f"{n + 1}." for n in range(shown))],
            [
                (a.item, a.answer, _basis(a), *(f"{name} {p:.2f}" for name, p in a.top(shown)))
                for a in answers
            ],
        )
    for path in (csv, plot):
        if path is not None and answers and not as_json:
            console.out.print(f"timeline: {path}")
    for failure in failures:
        console.err.print(f"error: {failure['error']}")
    if any(Path(failure["item"]) in files for failure in failures):
        raise typer.Exit(1)


def _files_of(paths: list[Path]) -> list[Path]:
    """The paths, for folders the files in them, but for hidden ones."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.is_file())
            found += [
                one
                for one in inside
                if not any(part.startswith(".") for part in one.relative_to(path).parts)
            ]
        else:
            found.append(path)
    if not found:
        raise AnymodalError(f"no files in {', '.join(map(str, paths))}")
    return found


def location_of(model: str, params: Path) -> str | Path:
    """Where the classifier is that an option asks for: by default the project's."""
    from anymodal.workspace import Workspace

    return model or Workspace(params.parent).classifier


def _basis(answer: Prediction) -> str:
    """What an answer rests on, such as `sound and picture, 8 s`."""
    last = answer.moments[-1]
    seconds = last.start_s + last.seconds
    what = "sound and picture" if answer.modality == "both" else answer.modality
    return f"{what}, {seconds:.0f} s" if seconds >= 2 else what


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
    from anymodal.report.timeline_figure import timeline_figure
    from anymodal.storage import atomic_path

    with atomic_path(path) as temporary:
        timeline_figure(answers).savefig(temporary, dpi=150)
