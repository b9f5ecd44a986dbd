"""The routes of the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from anymodal import __version__
from anymodal.core.modality import Modality
from anymodal.serve.answers import Answers, Health, Index, ModelAnswer, ProblemAnswer
from anymodal.serve.bodies import Body, FilesOfJson, Upload
from anymodal.serve.decoding import SEGMENT
from anymodal.serve.docs_page import docs_page
from anymodal.serve.limits import ServeLimits
from anymodal.serve.metrics import CountRequests, Metrics
from anymodal.serve.problems import PROBLEM, Problem, ProblemResponse, RefusalResponse
from anymodal.serve.service import Classifier, Service

_log = logging.getLogger(__name__)
ROUTES = frozenset(("/", "/predict", "/search", "/healthz", "/metrics", "/docs", "/openapi.json"))

_STATUSES = {
    400: "the request holds no file, or cannot be read",
    408: "the body did not come in in time",
    413: "more bytes than allowed, of the request or of every file",
    415: "neither multipart nor JSON, or no file holds sound, picture or film",
    422: "no file can be decoded within the limits, or JSON of another shape",
    503: "too many requests in progress; `Retry-After` says when to come back",
    504: "no answer in time",
}
_WHOLE = (
    "Every file gets an answer or an error of its own, in the order in which they were sent. The "
    "request succeeds (200) where at least one file got an answer, so look at each `status`; where "
    "none did, it has the status that all files share, or else 422."
)


def create_app(
    classifier: Classifier,
    index: Any = None,
    limits: ServeLimits | None = None,
    name: str = "classifier",
    decode: str = SEGMENT,
) -> FastAPI:
    """The web application.

    Parameters
    ----------
    classifier: `ModalityAgnosticClassifier`, or anything like `service.Classifier`.
    index: `anymodal.search.Index` for `/search`, which is 404 without one.
    limits: what requests may cost; default: `ServeLimits()`.
    name: what the answers call the model.
    decode: `module:function` that takes a file apart in the decoder processes.

    Decoders and the inference thread start and end with the app (ASGI lifespan), so it lives once.
    The service is at `app.state.service`.
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
        summary="Names the instrument in sounds, pictures and films, and finds similar ones.",
        lifespan=lifespan,
        # FastAPI's own page loads its scripts from another host
        docs_url=None,
        redoc_url=None,
    )
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": ProblemAnswer, "description": text} for status, text in _STATUSES.items()
    }
    app.state.service = service
    app.add_middleware(CountRequests, metrics=metrics, routes=ROUTES)

    @app.post(
        "/predict",
        openapi_extra=_takes(limits.files),
        description=_WHOLE,
        responses=refusals,
    )
    async def predict(request: Request) -> Answers:
        """Name the instrument in sounds, pictures and films."""
        return await _answered(service, request, limits.files, service.predict)

    # named here, since annotations of inner functions are not looked up among their neighbours
    k_ = Query(10, ge=1, le=limits.neighbours, description="neighbours")
    modality_ = Query(None, description="of the neighbours; default: either")

    @app.post(
        "/search",
        openapi_extra=_takes(1),
        description="One file: what of the index is most like it."
        + ("" if index is not None else " This server has no index, so it answers 404."),
        responses=refusals
        | {404: {"model": ProblemAnswer, "description": "this server has no index"}},
    )
    async def search(
        request: Request,
        k: int = k_,
        modality: Modality | None = modality_,
    ) -> Answers:
        """Find what is most like a sound, a picture or a film."""
        if index is None:
            raise Problem(404, "this server has no index; start it with --index FOLDER")
        return await _answered(
            service, request, 1, lambda uploads: service.search(uploads, k, modality)
        )

    @app.get("/healthz", responses={503: {"model": Health, "description": "it cannot answer"}})
    async def healthz(request: Request, response: Response) -> Health:
        """Whether the server can answer."""
        health = Health(**service.health())
        response.status_code = 200 if health.status == "ok" else 503
        return health

    @app.get("/metrics", response_class=Response)
    async def metrics_(request: Request) -> Response:
        """Figures for Prometheus."""
        text, kind = metrics.text()
        return Response(text, media_type=kind)

    @app.get("/")
    async def root(request: Request) -> Index:
        """What is served, and where."""
        links = {"predict": "/predict", "docs": "/docs", "openapi": "/openapi.json"}
        if index is not None:
            links["search"] = "/search"
        return Index(
            service=f"anymodal {__version__}",
            model=ModelAnswer.model_validate(service.model),
            search=index is not None,
            links={**links, "health": "/healthz", "metrics": "/metrics"},
            limits=limits.model_dump(),
        )

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        page = docs_page(app.openapi(), limits, service.model)
        # the page is text alone: it needs no script, and may load nothing
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return ProblemResponse(error)

    @app.exception_handler(HTTPException)
    async def http_problem(request: Request, error: HTTPException) -> Response:
        return ProblemResponse(Problem(error.status_code, str(error.detail), error.headers))

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return ProblemResponse(Problem(422, f"{first['loc'][-1]}: {first['msg']}"))

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return _bug()

    _describe_problems(app.openapi())
    return app


def _bug() -> Response:
    return ProblemResponse(Problem(500, "the server failed; its log says where"))


async def _answered(
    service: Service,
    request: Request,
    files: int,
    answer: Callable[[Sequence[Upload]], Awaitable[list[dict[str, Any]]]],
) -> Any:
    """The response to a request that brings files."""
    body = None
    try:
        with service.admitted(), service.held.share() as share:
            body = Body(request, service.limits, share)
            uploads = await body.uploads()
            if len(uploads) > files:
                raise Problem(400, f"send {files} file at a time, not {len(uploads)}")
            items = await answer(uploads)
    except Problem as error:
        complete = body is not None and body.complete
        return ProblemResponse(error) if complete else RefusalResponse(error)
    except Exception:
        # told here, because a server closes the connection on what escapes an app
        _log.exception("%s failed", request.url.path)
        return _bug()
    statuses = {item["status"] for item in items}
    if 200 in statuses:
        return JSONResponse({"model": service.model, "items": items})
    status = statuses.pop() if len(statuses) == 1 else 422
    detail = items[0]["error"] if len(items) == 1 else f"none of {len(items)} files got an answer"
    headers = {"Retry-After": "1"} if status == 503 else {}
    return ProblemResponse(Problem(status, detail, headers, items=items))


def _describe_problems(openapi: dict[str, Any]) -> None:
    """Give refusals the media type that they have; FastAPI takes all models for plain JSON."""
    for methods in openapi["paths"].values():
        for route in methods.values():
            for response in route["responses"].values():
                content = response.get("content", {})
                schema = content.get("application/json", {}).get("schema", {})
                if schema.get("$ref", "").endswith("/ProblemAnswer"):
                    content[PROBLEM] = content.pop("application/json")


def _takes(files: int) -> dict[str, Any]:
    """The body of a request, for OpenAPI: the app reads it itself, to count it as it comes."""
    binary = {"type": "string", "format": "binary"}
    json_schema = _inlined(FilesOfJson.model_json_schema())
    json_schema["properties"]["items"]["maxItems"] = files
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["files"],
                        "properties": {
                            "files": {
                                "type": "array",
                                "minItems": 1,
                                "maxItems": files,
                                "items": binary,
                                "description": "file names are labels",
                            }
                        },
                    }
                },
                "application/json": {"schema": json_schema},
            },
        }
    }


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without references, whose targets would not be in the document."""
    definitions = schema.pop("$defs", {})
    items = schema["properties"]["items"]
    items["items"] = definitions[items["items"]["$ref"].rpartition("/")[2]]
    return schema
