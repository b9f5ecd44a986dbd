"""`anymodal export`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from anymodal.cli_context import PARAMS, ParamsFile
from anymodal.cli_predict import ModelOption, location_of
from anymodal.errors import AnymodalError, MediaError


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write; an export there is replaced.")],
    model: ModelOption = "",
    heads_only: Annotated[
        bool, typer.Option("--heads-only", help="From the encoders' embeddings on, without them.")
    ] = False,
    check: Annotated[
        list[Path],
        typer.Option(help="File, or folder of files, to compare the answers for; repeatable."),
    ] = [],  # noqa: B006
    tolerance: Annotated[
        float, typer.Option(help="Difference of a probability that a file may have.")
    ] = 0.05,
    params: ParamsFile = PARAMS,
) -> None:
    """Write a classifier as ONNX models, and compare their answers with its own.

    Where they differ by more than rounding, nothing is written and the exit status is 1.
    """
    if heads_only and check:
        raise AnymodalError("--check compares files, which --heads-only cannot take; leave one out")
    files = [file for path in check for file in _media(path)]
    from anymodal import console
    from anymodal.model import ModalityAgnosticClassifier
    from anymodal.onnx.exporting import export as write

    classifier = ModalityAgnosticClassifier.load(location_of(model, params), device="cpu")
    manifest = write(classifier, folder, not heads_only, check=files, tolerance=tolerance)
    rows = manifest.parity["random_rows"]
    console.table(
        f"{folder}: {len(manifest.classes)} classes; largest differences from the classifier on "
        "random rows",
        ["model", "MB", "rows", "joint vector", "votes for it", "probability", "votes moved in"],
        [
            (
                one.file,
                f"{(folder / one.file).stat().st_size / 1e6:.1f}",
                rows[name]["rows"],
                f"{rows[name]['joint']:.1e}",
                f"{rows[name]['votes']:.1e}",
                f"{rows[name]['probabilities']:.1e}",
                rows[name]["rows_otherwise"],
            )
            for name, one in sorted(manifest.models.items())
        ],
    )
    for modality, reason in manifest.left_out.items():
        console.out.print(f"{modality}: the head alone, for {reason}")
    if files:
        items = manifest.parity["items"]
        console.out.print(
            f"{items['items']} files: largest difference of a probability "
            f"{items['probabilities']:.1e}, another answer for {items['answers_otherwise']}"
        )


def _media(path: Path) -> Iterator[Path]:
    """A file, or the media in a folder and those below it."""
    from anymodal import media

    if not path.is_dir():
        yield path
        return
    found = False
    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        try:
            media.sniff(file)
        except MediaError:
            continue
        found = True
        yield file
    if not found:
        raise AnymodalError(f"{path} holds no sound, picture or film")
