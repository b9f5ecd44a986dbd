"""The command `anymodal app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anymodal.cli.context import PARAMS, ParamsFile
from anymodal.cli.predict import ModelOption, location_of
from anymodal.core.errors import AnymodalError


def app(
    model: ModelOption = "",
    media: Annotated[
        Path | None,
        typer.Option(help="The dataset's folder, for previews of the nearest clips."),
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 to be reached from elsewhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 7860,
    max_mb: Annotated[float, typer.Option(help="MiB of a file.")] = 50,
    params: ParamsFile = PARAMS,
) -> None:
    """Serve a web page that classifies files and recordings.

    Ctrl-C and SIGTERM end it.
    """
    try:
        import gradio  # noqa: F401
        import plotly  # noqa: F401
    except ModuleNotFoundError as error:
        raise AnymodalError(
            f"the page needs the module {error.name}: pip install 'anymodal[app]'"
        ) from error
    from anymodal.app.server import Settings, run
    from anymodal.classifier.model import ModalityAgnosticClassifier

    settings = Settings(media, host, port, max_mb)
    classifier = ModalityAgnosticClassifier.load(location_of(model, params))
    run(
        classifier,
        settings,
        lambda address: typer.echo(f"the page is at {address}; Ctrl-C ends it"),
    )
