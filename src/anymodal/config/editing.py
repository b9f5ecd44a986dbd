"""Changing single values of params.yaml; comments, order and quotes stay (ruamel.yaml)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from anymodal.config.params import parse_params
from anymodal.core.storage import write_bytes

_FLOAT = "tag:yaml.org,2002:float"


def set_values(path: str | Path, section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Set `section.name` of the parameters file for each name of `values`; atomic.

    Returns the old values, defaults where the file has none. Raises `AnymodalError`, with the file
    unchanged, when it cannot be read or the result would not be valid.
    """
    path = Path(path)
    text = path.read_bytes().decode("utf-8")
    before = parse_params(text, path).model_dump()[section]
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10**6
    # by default None is written as nothing at all, and 1e-06, which is text in YAML 1.1, as that
    yaml.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml.representer.add_representer(
        float, lambda dumper, value: dumper.represent_scalar(_FLOAT, _with_point(value))
    )
    document = yaml.load(text.replace("\r\n", "\n")) or {}
    document[section] = document.get(section) or {}
    document[section].update(values)
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    changed = buffer.getvalue()
    if "\r\n" in text:
        changed = changed.replace("\n", "\r\n")
    parse_params(changed, path)
    write_bytes(path, changed.encode("utf-8"))
    return {name: before[name] for name in values}


def _with_point(value: float) -> str:
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")
