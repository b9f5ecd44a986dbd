"""The routes of the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from anymodal import __version__
from anymodal.core.modality import Modality
from anymodal.serve.answers import Answers, Health, ProblemAnswer
from anymodal.serve.bodies import Body, FileOfJson, FilesOfJson
from anymodal.serve.decoding import SEGMENT
from anymodal.serve.limits import ServeLimits
from anymodal.serve.metrics import CountRequests, Metrics
from anymodal.serve.problems import ProblemResponse
from anymodal.serve.service import Query, Service

if TYPE_CHECKING:
    from anymodal import search as searching
    from anymodal.classifier.model import ModalityAgnosticClassifier

_log = logging.getLogger(__name__)

_STATUSES = {
    400: "the request holds no file, or cannot be read",
    404: "for `/search`: this server has no index",
    408: "the body was not received in time",
    413: "more bytes than allowed, of the request or of every file",
    415: "neither multipart nor JSON, or no file holds audio, an image or a video",
    422: "no file can be decoded within the limits, or JSON of another shape",
    503: "too many requests in progress; `Retry-After` says when to come back",
    504: "no answer in time",
}


def create_app(
    classifier: ModalityAgnosticClassifier,
    index: searching.Index | None = None,
    limits: ServeLimits | None = None,
    name: str = "classifier",
    decode: str = SEGMENT,
) -> FastAPI:
    """Return the web application, which can be started once.

    `index` is for `/search`, which is 404 without one; `name` is the model's in the answers.
    """
    limits = limits or ServeLimits()
    metrics = Metrics()
    service = Service(classifier, index, limits, metrics, name, decode)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.start)
        try:
            yield
        finally:
            await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="anymodal",
        version=__version__,
        summary="Classifies the instrument in audio, images and videos, and finds similar items.",
        lifespan=lifespan,
        # FastAPI's page loads its scripts from another host
        docs_url=None,
        redoc_url=None,
    )
    schema = ProblemAnswer.model_json_schema(ref_template="#/components/schemas/{model}")
    del schema["$defs"]
    errors: dict[int | str, dict[str, Any]] = {
        status: {"description": text, "content": {ProblemResponse.media_type: {"schema": schema}}}
        for status, text in _STATUSES.items()
    }
    app.state.service = service
    app.add_middleware(CountRequests, metrics=metrics)

    @app.post("/predict", openapi_extra=_takes(limits.files), responses=errors)
    async def predict(request: Request) -> Answers:
        """Classify audio, images and videos.

        Every file gets an answer or an error, in the order in which they were sent. The request
        succeeds if at least one file got an answer, so check each `status`; if none did, it has the
        status that all files share, otherwise 422.
        """
        return await _answered(service, request, limits.files)

    # defaults, because names of this function are unknown to annotations
    k_: Any = params.Query(10, ge=1, le=limits.neighbours, description="neighbours")
    modality_: Any = params.Query(None, description="of the neighbours; default: either")

    @app.post("/search", openapi_extra=_takes(1), responses=errors)
    async def search(
        request: Request, k: int = k_, modality: Modality | None = modality_
    ) -> Answers:
        """Find the items of the index that are most similar to one file."""
        if index is None:
            raise HTTPException(404, "this server has no index; start it with --index FOLDER")
        return await _answered(service, request, 1, (k, modality))

    @app.get("/healthz", responses={503: {"model": Health, "description": "it cannot answer"}})
    async def healthz(response: Response) -> Health:
        """Whether the server can answer."""
        health = service.health()
        response.status_code = 200 if health.status == "ok" else 503
        return health

    @app.get("/metrics", response_class=Response)
    async def metrics_() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/")
    async def root() -> dict[str, Any]:
        """What is served, and where."""
        links = {name: f"/{name}" for name in ("predict", "docs", "metrics")}
        links |= {"openapi": "/openapi.json", "health": "/healthz"}
        return {
            "service": f"anymodal {__version__}",
            "model": service.model,
            "search": index is not None,
            "links": links | ({} if index is None else {"search": "/search"}),
            "limits": limits.model_dump(),
        }

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        source = resources.files("anymodal.serve").joinpath("docs.html.j2").read_text("utf-8")
        template = Environment(autoescape=True).from_string(source)
        page = template.render(openapi=app.openapi(), limits=limits.rows(), model=service.model)
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        return ProblemResponse(error)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return ProblemResponse(HTTPException(422, f"{first['loc'][-1]}: {first['msg']}"))

    return app


async def _answered(
    service: Service, request: Request, files: int, query: Query | None = None
) -> Any:
    """The response to a request with files."""
    body = Body(request, service.limits, service.budget)
    try:
        with service.admitted():
            uploads = await body.uploads()
            if len(uploads) > files:
                raise HTTPException(400, f"send {files} file at a time, not {len(uploads)}")
            items = await service.answer(uploads, query)
    except HTTPException as error:
        return ProblemResponse(error, early=not body.complete)
    except Exception:
        # the server would close the connection
        _log.exception("%s failed", request.url.path)
        return ProblemResponse(HTTPException(500, "the server failed; its log has the reason"))
    finally:
        service.budget.release(body=body.size)
    statuses = {item["status"] for item in items}
    if 200 in statuses:
        return JSONResponse({"model": service.model, "items": items})
    status = statuses.pop() if len(statuses) == 1 else 422
    detail = items[0]["error"] if len(items) == 1 else f"none of {len(items)} files got an answer"
    headers = {"Retry-After": "1"} if status == 503 else None
    return ProblemResponse(HTTPException(status, detail, headers), items=items)


def _takes(files: int) -> dict[str, Any]:
    """The body of a request, for OpenAPI: the app reads it itself, to count it."""
    form = {
        **{"type": "array", "minItems": 1, "maxItems": files, "description": "names are labels"},
        "items": {"type": "string", "format": "binary"},
    }
    json_schema = FilesOfJson.model_json_schema()
    del json_schema["$defs"]
    items = {"items": FileOfJson.model_json_schema(), "maxItems": files}
    json_schema["properties"]["items"] |= items
    form_schema = {"type": "object", "required": ["files"], "properties": {"files": form}}
    content = {
        "multipart/form-data": {"schema": form_schema},
        "application/json": {"schema": json_schema},
    }
    return {"requestBody": {"required": True, "content": content}}
