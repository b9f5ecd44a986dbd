"""Changing single values of params.yaml, and nothing else in it.

The file is its reader's: comments, order, blank lines, quotes and the way numbers are written stay
byte for byte. So values are replaced at the places that the YAML parser gives for them, instead of
the file being written anew from what was read (which loses comments, or, with round-trip writers,
spellings such as `null`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from anymodal.errors import AnymodalError
from anymodal.params import Params
from anymodal.storage import write_bytes


def set_values(path: str | Path, section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Set `section.name` of the parameters file for each name of `values`; atomic.

    Returns the old values (defaults, where the file said nothing). Raises `AnymodalError`, with the
    file as it was, where the result would not be the file with these values, such as a value that
    stands behind an alias.
    """
    path = Path(path)
    text = path.read_bytes().decode("utf-8")
    before = yaml.safe_load(text) or {}
    known = Params.model_validate(before).model_dump()[section]
    wanted = {**before, section: {**(before.get(section) or {}), **values}}
    changed = edited(text, section, values)
    try:
        faithful = _ordered(yaml.safe_load(changed)) == _ordered(wanted)
        Params.model_validate(wanted)
    except (yaml.YAMLError, ValueError):
        faithful = False
    if not faithful:
        told = ", ".join(f"{name}: {_spelt(value)}" for name, value in values.items())
        raise AnymodalError(
            f"{path} is written in a way that cannot be edited; set by hand in {section}: {told}"
        )
    write_bytes(path, changed.encode("utf-8"))
    return {name: known[name] for name in values}


def edited(text: str, section: str, values: Mapping[str, Any]) -> str:
    """`text` with the values of one section set; names that are not there are added to it."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    newline = "\r\n" if "\r\n" in text else "\n"
    node = _child(root, section) if isinstance(root, yaml.MappingNode) else None
    cuts: list[tuple[int, int, str]] = []
    added: list[str] = []
    for name, value in values.items():
        found = _child(node, name) if isinstance(node, yaml.MappingNode) else None
        if found is not None:
            start, stop = found.start_mark.index, found.end_mark.index
            # a value left out ends where it begins, right behind the colon
            space = " " if start == stop and text[start - 1 : start] == ":" else ""
            cuts.append((start, stop, space + _spelt(value)))
        else:
            added.append(f"{name}: {_spelt(value)}")
    if added and isinstance(node, yaml.MappingNode) and node.value:
        first = node.value[0][0].start_mark
        between = ", " if node.flow_style else newline + " " * first.column
        cuts.append((first.index, first.index, "".join(one + between for one in added)))
    elif added and node is not None:  # {}
        start, stop = node.start_mark.index, node.end_mark.index
        inner = newline + newline.join(f"  {one}" for one in added)
        cuts.append((start, stop, inner))
    elif added:
        lead = "" if not text or text.endswith("\n") else newline
        block = newline.join([f"{section}:", *(f"  {one}" for one in added)]) + newline
        cuts.append((len(text), len(text), lead + newline + block if text else block))
    for start, stop, new in sorted(cuts, reverse=True):
        text = text[:start] + new + text[stop:]
    return text


def _child(node: yaml.MappingNode, name: str) -> yaml.Node | None:
    for key, value in node.value:
        if key.value == name:
            return value
    return None


def _spelt(value: Any) -> str:
    """A single value as YAML."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    )


def _ordered(value: Any) -> str:
    """For comparing what was read: order is no matter, but 1, 1.0 and true differ."""
    if isinstance(value, Mapping):
        return str(sorted((str(name), _ordered(one)) for name, one in value.items()))
    return repr(value)
