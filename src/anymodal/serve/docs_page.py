"""The page of documentation: made from the OpenAPI document, with nothing from another host."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined

from anymodal.serve.limits import ServeLimits


def docs_page(openapi: dict[str, Any], limits: ServeLimits, model: dict[str, Any]) -> str:
    """The page as HTML."""
    source = resources.files("anymodal.serve").joinpath("docs.html.j2").read_text("utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
    routes = [
        {
            "method": method.upper(),
            "path": path,
            "summary": told.get("summary", ""),
            "description": told.get("description", ""),
            "parameters": told.get("parameters", []),
            "takes": list(told.get("requestBody", {}).get("content", {})),
            "responses": {
                status: response["description"]
                for status, response in sorted(told["responses"].items())
            },
        }
        for path, methods in openapi["paths"].items()
        for method, told in methods.items()
    ]
    return template.render(
        title=openapi["info"]["title"],
        version=openapi["info"]["version"],
        summary=openapi["info"].get("summary", ""),
        routes=routes,
        limits=limits.rows(),
        model=model,
    )
