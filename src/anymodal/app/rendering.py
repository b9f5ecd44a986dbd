"""The page's HTML, from Jinja templates in which everything is escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_NBSP = "\N{NO-BREAK SPACE}"


def percent(share: float) -> str:
    """A probability as per cent, never 0 % or 100 %."""
    if share > 0.99:
        return f">{_NBSP}99{_NBSP}%"
    return f"{100 * share:.0f}{_NBSP}%" if share >= 0.01 else f"<{_NBSP}1{_NBSP}%"


def seconds(value: float) -> str:
    """`0.5 s`, `12 s`, `3 min 5 s`."""
    if value >= 60:
        return f"{round(value) // 60}{_NBSP}min {round(value) % 60}{_NBSP}s"
    text = f"{value:.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")
    return f"{text}{_NBSP}s"


_ENVIRONMENT = Environment(
    loader=PackageLoader("anymodal.app"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"percent": percent, "seconds": seconds}
_ENVIRONMENT.globals["plural"] = {"audio": "audio clips", "image": "images"}


def render(template: str, **context: Any) -> str:
    """HTML of `templates/<template>.html.j2`."""
    html = _ENVIRONMENT.get_template(f"{template}.html.j2").render(context)
    # Gradio evaluates `${…}` and `{{…}}` in HTML as templates, in the browser
    return html.replace("$", "&#36;").replace("{", "&#123;")
