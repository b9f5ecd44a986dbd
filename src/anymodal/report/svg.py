"""Matplotlib figures as inline SVG that follows the page's theme.

The same figure gives the same bytes: no dates, no random ids. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

from matplotlib import rc_context
from matplotlib.figure import Figure

from anymodal.report.palette import LIGHT

_DROPPED = {"metadata", "style"}
_FONT = re.compile(r"font:\s*(?:(?P<weight>bold|\d{3})\s+)?(?P<size>[\d.]+)px[^;]*")
_FAMILY = re.compile(r"font-family:[^;]*;?\s*")
_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """`figure` as an `<svg>` element for an HTML page.

    `name` prefixes the element's ids, so that several figures fit one page; `label` is what a
    screen reader says of it.
    """
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    used = {
        found
        for element in root.iter()
        for value in element.attrib.values()
        for found in (*_REFERENCE.findall(value), *([value[1:]] if value[:1] == "#" else []))
    }
    _clean(root, name, used)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib.clear()
    root.attrib |= {
        "viewBox": f"0 0 {width} {height}",
        "class": "plot",
        "role": "img",
        "aria-label": label,
        # the size in which letters have their drawn size; the page may scale it
        "style": f"--drawn: {float(width):.0f}",
    }
    return ET.tostring(root, encoding="unicode")


def _clean(element: ET.Element, name: str, used: set[str]) -> None:
    element.tag = element.tag.rpartition("}")[2]
    attributes = {}
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "id":
            if value not in used:
                continue
            value = f"{name}-{value}"
        elif key == "href":
            value = f"#{name}-{value[1:]}"
        else:
            value = _REFERENCE.sub(rf"url(#{name}-\1)", value)
            value = _FAMILY.sub("", _FONT.sub(_font, value))
            value = _COLOUR.sub(lambda found: _VARIABLES.get(found[0], found[0]), value)
        attributes[key] = value
    element.attrib.clear()
    element.attrib |= attributes
    for child in list(element):
        if child.tag.rpartition("}")[2] in _DROPPED:
            element.remove(child)
        else:
            _clean(child, name, used)
    for child in list(element):
        if child.tag == "defs" and not len(child):
            element.remove(child)


def _font(found: re.Match[str]) -> str:
    weight = f"; font-weight: {found['weight']}" if found["weight"] else ""
    return f"font-size: {found['size']}px{weight}"
