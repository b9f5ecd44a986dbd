"""Boil the published AudioSet ontology down to the facts that anymodal ships.

    python tools/build_ontology.py ontology.json [src/anymodal/ontology/ontology.json]

`ontology.json` is the file of https://github.com/audioset/ontology (CC BY-SA 4.0). Kept of every
class: id, display name, children, restrictions. Left out: descriptions, citations and examples,
which nothing here reads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import write_text

OUTPUT = Path(__file__).parent.parent / "src" / "anymodal" / "ontology" / "ontology.json"

NOTICE = {
    "title": "AudioSet ontology: ids, names, children and restrictions of its classes",
    "source": "https://github.com/audioset/ontology",
    "citation": "J. F. Gemmeke et al., Audio Set: An ontology and human-labeled dataset for audio "
    "events, ICASSP 2017",
    "license": "CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)",
    "changes": "descriptions, citations and examples removed",
    "columns": ["id", "name", "children", "restrictions"],
}


def compact(published: Any) -> list[list[Any]]:
    """Reduce the published list of classes to [id, name, children, restrictions] each.

    Raises `AnymodalError` where the input is not a sound taxonomy: no list of classes, an empty
    one, a repeated id or name, a child that is no class.
    """
    try:
        nodes = [
            [node["id"], node["name"], list(node["child_ids"]), list(node["restrictions"])]
            for node in published
        ]
    except (KeyError, TypeError) as error:
        raise AnymodalError(
            f"not a list of AudioSet classes ({error!r}); give ontology.json of audioset/ontology"
        ) from error
    if not nodes:
        raise AnymodalError("holds no class; give ontology.json of audioset/ontology")
    for column, what in ((0, "id"), (1, "name")):
        values = [node[column] for node in nodes]
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            raise AnymodalError(f"{what} {repeated[0]!r} stands for more than one class")
    known = {node[0] for node in nodes}
    for mid, _, children, _ in nodes:
        for child in children:
            if child not in known:
                raise AnymodalError(f"{mid} has the child {child}, which is no class of the file")
    return nodes


def render(nodes: list[list[Any]]) -> str:
    """The data file's text: JSON with one class a line, so that a change shows as its line."""
    head = json.dumps(NOTICE, indent=1, ensure_ascii=False)
    lines = ",\n".join(
        "  " + json.dumps(node, ensure_ascii=False, separators=(",", ":")) for node in nodes
    )
    return f'{head[:-2]},\n "nodes": [\n{lines}\n ]\n}}\n'


def main(arguments: list[str]) -> int:
    """Command line; returns the exit status."""
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    output = Path(arguments[1]) if len(arguments) == 2 else OUTPUT
    try:
        nodes = compact(json.loads(Path(arguments[0]).read_text(encoding="utf-8")))
    except (OSError, ValueError, AnymodalError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    write_text(output, render(nodes))
    print(f"{output}: {len(nodes)} classes, {sum(len(node[2]) for node in nodes)} edges")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
