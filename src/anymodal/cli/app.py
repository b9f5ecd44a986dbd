"""The command `anymodal app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anymodal.cli_context import PARAMS, ParamsFile
from anymodal.cli_predict import ModelOption, location_of
from anymodal.errors import AnymodalError


def app(
    model: ModelOption = "",
    media: Annotated[
        Path | None,
        typer.Option(help="The dataset's folder: the nearest clips are then seen and heard."),
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 to be reached from elsewhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 7860,
    max_mb: Annotated[float, typer.Option(help="MiB of a file.")] = 50,
    params: ParamsFile = PARAMS,
) -> None:
    """Open a web page that names the instrument in what is dropped on it or recorded.

    SIGTERM and Ctrl-C end it.
    """
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        raise AnymodalError(
            f"the page needs the module {error.name}: pip install 'anymodal[app]'"
        ) from error
    from anymodal.app.server import Settings, run
    from anymodal.model import ModalityAgnosticClassifier

    settings = Settings(media, host, port, max_mb)
    classifier = ModalityAgnosticClassifier.load(location_of(model, params))
    run(
        classifier,
        settings,
        lambda address: typer.echo(f"the page is at {address}; Ctrl-C ends it"),
    )
