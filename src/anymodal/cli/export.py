"""`anymodal export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anymodal.cli.context import PARAMS, ParamsFile
from anymodal.cli.predict import ModelOption, files_in, location_of
from anymodal.core.errors import AnymodalError, MediaError


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write; an export there is replaced.")],
    model: ModelOption = "",
    heads_only: Annotated[
        bool, typer.Option("--heads-only", help="Only from embeddings on, without the encoders.")
    ] = False,
    check: Annotated[
        list[Path],
        typer.Option(help="File, or folder of files, whose answers to compare; repeatable."),
    ] = [],  # noqa: B006
    tolerance: Annotated[
        float, typer.Option(help="Difference of a probability allowed for a file.")
    ] = 0.05,
    params: ParamsFile = PARAMS,
) -> None:
    """Write a classifier as ONNX models, and compare their answers with its own.

    Where they differ by more than rounding, nothing is written and the exit status is 1.
    """
    if heads_only and check:
        raise AnymodalError("--check compares files, which --heads-only cannot take; omit one")
    files = [file for path in check for file in _media(path)]
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.cli import console
    from anymodal.export.exporting import export as write

    classifier = ModalityAgnosticClassifier.load(location_of(model, params), device="cpu")
    manifest = write(classifier, folder, not heads_only, check=files, tolerance=tolerance)
    parity = manifest.parity
    assert parity is not None
    console.table(
        f"{folder}: {len(manifest.classes)} classes; largest differences from the classifier on "
        "random rows",
        ["model", "MB", "rows", "joint vector", "votes", "probability", "rows with other votes"],
        [
            (
                of_model.file,
                f"{(folder / of_model.file).stat().st_size / 1e6:.1f}",
                rows.rows,
                f"{rows.joint:.1e}",
                f"{rows.votes:.1e}",
                f"{rows.probabilities:.1e}",
                rows.rows_with_other_votes,
            )
            for name, of_model in sorted(manifest.models.items())
            for rows in [parity.random_rows[name]]
        ],
    )
    for modality, reason in manifest.left_out.items():
        console.out.print(f"{modality}: the head alone, for {reason}")
    if files:
        console.out.print(
            f"{parity.items.items} files: largest difference of a probability "
            f"{parity.items.probabilities:.1e}, another answer for {parity.items.other_answers}"
        )


def _media(path: Path) -> list[Path]:
    """A file, or the media files in a folder and those below it."""
    from anymodal.media import decoding

    if not path.is_dir():
        return [path]
    files = []
    for file in files_in(path):
        try:
            decoding.sniff(file)
        except MediaError:
            continue
        files.append(file)
    if not files:
        raise AnymodalError(f"{path} holds no audio, image or video")
    return files
