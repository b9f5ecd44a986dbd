"""Graphs of an index on disk: taken over from the index before, built, or read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pyarrow as pa

from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import atomic_path, write_npy
from anymodal.search import graphs, store
from anymodal.search.graphs import Advance, Graph
from anymodal.search.store import Contents

Progress = Callable[[str], AbstractContextManager[Advance | None]]
"""Gives a named step of work its progress bar."""


def first_row(counts: dict[Modality, int], modality: Modality) -> int:
    """Where a modality's rows begin."""
    return 0 if modality == "audio" else counts["audio"]


def read_graph(contents: Contents, modality: Modality) -> Graph:
    """A graph that the index's header tells of. Raises `AnymodalError` if it is not readable."""
    import faiss

    told = contents.header["graphs"][modality]
    counts = contents.counts
    try:
        # mapped into memory where FAISS can (1.11 on): one search reads little of it
        flags = getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
        index = faiss.read_index(str(contents.folder / told["file"]), flags)
        nodes = np.load(contents.folder / told["nodes"], allow_pickle=False)
    # FAISS has no errors of its own
    except (OSError, ValueError, RuntimeError) as error:
        raise store.damaged(
            contents.folder, f"has no readable graph {told['file']}, or was replaced meanwhile"
        ) from error
    if index.ntotal != len(nodes) or index.d != contents.vectors.shape[1]:
        raise store.damaged(contents.folder, f"has a graph {told['file']} of other rows")
    return Graph(index, nodes, first_row(counts, modality), counts[modality])


def make_graphs(
    contents: Contents, before: Contents | None, progress: Progress | None = None
) -> dict[str, Any]:
    """The graphs of `contents`, on disk: what its header tells of them.

    Those of the index `before` are taken over as long as little has changed since they were built.
    """
    told: dict[str, Any] = {}
    counts = contents.counts
    moved: np.ndarray | None = None
    for modality in MODALITIES:
        if counts[modality] < graphs.LEAST:
            continue
        if before is not None and modality in before.header["graphs"]:
            if contents is before:
                told[modality] = before.header["graphs"][modality]
                continue
            moved = _moved(before.rows, contents.rows) if moved is None else moved
            kept = _take_over(contents, before, modality, moved)
            if kept is not None:
                told[modality] = kept
                continue
        bar = progress(f"graph of {modality}") if progress else nullcontext()
        with bar as advance:
            graph = graphs.build(
                contents.vectors, first_row(counts, modality), counts[modality], advance
            )
        facts = graphs.measure(graph, contents.vectors, counts)
        told[modality] = {
            **facts,
            "built_rows": counts[modality],
            **_save(contents, modality, graph, None),
        }
    return told


def _take_over(
    contents: Contents, before: Contents, modality: Modality, moved: np.ndarray
) -> dict[str, Any] | None:
    told = before.header["graphs"][modality]
    try:
        nodes = np.load(before.folder / told["nodes"], allow_pickle=False)
    except (OSError, ValueError):
        return None
    if not (before.folder / told["file"]).is_file() or nodes.max(initial=-1) >= len(moved):
        return None
    nodes = np.where(nodes >= 0, moved[nodes], -1)
    counts = contents.counts
    graph = Graph(None, nodes, first_row(counts, modality), counts[modality])
    if graph.stale:
        return None
    return {**told, **_save(contents, modality, graph, told["file"])}


def _save(contents: Contents, modality: Modality, graph: Graph, file: str | None) -> dict[str, Any]:
    number = contents.header["names"]["vectors"].removeprefix("vectors-").removesuffix(".npy")
    if file is None:
        import faiss

        file = f"graph-{modality}-{number}.faiss"
        with atomic_path(contents.folder / file) as temporary:
            faiss.write_index(graph.index, str(temporary))
    nodes = f"nodes-{modality}-{number}.npy"
    write_npy(contents.folder / nodes, graph.nodes)
    return {"file": file, "nodes": nodes}


def _moved(before: pa.Table, now: pa.Table) -> np.ndarray:
    """Where the rows of one table are in another, int64; -1 where they are not."""
    places = {key: place for place, key in enumerate(_keys(now))}
    return np.array([places.get(key, -1) for key in _keys(before)], dtype=np.int64)


def _keys(rows: pa.Table) -> list[tuple[str, str, str]]:
    names = ("path", "modality", "sha256")
    return list(zip(*(rows[name].to_pylist() for name in names), strict=True))
