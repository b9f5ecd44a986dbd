"""The command `anymodal serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anymodal.cli.context import PARAMS, ParamsFile
from anymodal.core.errors import AnymodalError

_MIB = 1 << 20


def serve(
    model: Annotated[
        str, typer.Option(help="Folder or MLflow URI of a classifier; default: the project's.")
    ] = "",
    index: Annotated[
        Path | None, typer.Option(help="Folder of an index, for /search; default: none.")
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 to be reached from elsewhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free one.")] = 8000,
    device: Annotated[str, typer.Option(help="Where the networks run.")] = "auto",
    max_file_mb: Annotated[float, typer.Option(help="MiB per file.")] = 32,
    max_files: Annotated[int, typer.Option(help="Files per request.")] = 16,
    max_request_mb: Annotated[float, typer.Option(help="MiB per request.")] = 64,
    max_requests: Annotated[int, typer.Option(help="Requests in progress; others get 503.")] = 32,
    max_held_mb: Annotated[float, typer.Option(help="MiB of all bodies and decoded items.")] = 512,
    decoders: Annotated[int, typer.Option(help="Decoder processes.")] = 2,
    decode_seconds: Annotated[float, typer.Option(help="To decode a file.")] = 10,
    decoder_memory_mb: Annotated[float, typer.Option(help="MiB per decoder process.")] = 1024,
    max_decoded_mb: Annotated[float, typer.Option(help="MiB per file once decoded.")] = 256,
    max_media_seconds: Annotated[float, typer.Option(help="Length of audio or video.")] = 3600,
    windows: Annotated[int, typer.Option(help="Windows used of one.")] = 60,
    receive_seconds: Annotated[float, typer.Option(help="To receive a request.")] = 30,
    answer_seconds: Annotated[float, typer.Option(help="From there to the answer.")] = 60,
    stop_seconds: Annotated[float, typer.Option(help="To finish requests when stopping.")] = 30,
    access_log: Annotated[bool, typer.Option("--access-log", help="Print every request.")] = False,
    params: ParamsFile = PARAMS,
) -> None:
    """Serve a classifier, and an index, over HTTP.

    SIGTERM and Ctrl-C stop it after the requests in progress; the exit status is then 0.
    """
    try:
        from anymodal.serve.app import create_app
    except ModuleNotFoundError as error:
        raise AnymodalError(
            f"serving needs the module {error.name}: pip install 'anymodal[serve]'"
        ) from error
    from anymodal.core.workspace import Workspace
    from anymodal.serve.limits import ServeLimits
    from anymodal.serve.server import make_server, run

    limits = ServeLimits(
        file_bytes=int(max_file_mb * _MIB),
        files=max_files,
        request_bytes=int(max_request_mb * _MIB),
        requests=max_requests,
        held_bytes=int(max_held_mb * _MIB),
        receive_s=receive_seconds,
        answer_s=answer_seconds,
        stop_s=stop_seconds,
        decoders=decoders,
        decode_s=decode_seconds,
        decoder_bytes=int(decoder_memory_mb * _MIB),
        decoded_bytes=int(max_decoded_mb * _MIB),
        media_s=max_media_seconds,
        windows=windows,
    )
    from anymodal.classifier.model import ModalityAgnosticClassifier

    location = model or str(Workspace(params.parent).classifier)
    classifier = ModalityAgnosticClassifier.load(location, device)
    opened = None
    if index is not None:
        from anymodal.search import Index

        opened = Index.open(index)
        opened.check(classifier)
    # clients need not know the path of a folder
    name = location if ":/" in location else Path(location).name

    def tell(address: str) -> None:
        typer.echo(
            f"serving {name} ({len(classifier.classes)} classes"
            f"{', with an index' if opened is not None else ''}) at {address}\n"
            f"documentation: {address}/docs; Ctrl-C stops it"
        )

    app = create_app(classifier, opened, limits, name)
    run(make_server(app, limits, access_log), host, port, tell)
