"""Pieces of HTML; whatever is not of this package is escaped."""

from __future__ import annotations

import re
from html import escape


def text(value: object) -> str:
    """A value as text of an element or of a quoted attribute.

    Also keeps what looks like a placeholder from being taken for one by a template in the browser.
    """
    return escape(str(value), quote=True).replace("$", "&#36;").replace("{", "&#123;")


def breakable(name: str) -> str:
    """A file's name as text that may be broken after its separators."""
    return re.sub(r"([_\-]+)", r"\1<wbr>", text(name))


def player(address: str, label: str) -> str:
    """The browser's own player of a sound."""
    return (
        f'<audio controls preload="metadata" src="{text(address)}" aria-label="{text(label)}">'
        "</audio>"
    )


def image(address: str, alt: str) -> str:
    """A picture with what a screen reader says of it."""
    return f'<img src="{text(address)}" alt="{text(alt)}">'
