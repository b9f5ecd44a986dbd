"""The page of documentation: made from the OpenAPI document, with nothing from another host."""

from __future__ import annotations

from importlib import resources
from typing import Any

from jinja2 import Environment

from anymodal.serve.limits import ServeLimits


def docs_page(openapi: dict[str, Any], limits: ServeLimits, model: dict[str, Any]) -> str:
    """Return the page as HTML."""
    source = resources.files("anymodal.serve").joinpath("docs.html.j2").read_text("utf-8")
    template = Environment(autoescape=True).from_string(source)
    return template.render(openapi=openapi, limits=limits.rows(), model=model)
