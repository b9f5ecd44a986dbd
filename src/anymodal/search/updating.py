"""Make an index of a folder, or bring one up to date.

unchanged         same path, size and time: not opened
touched           same path and content: hashed
renamed           content that lay under a path that is gone: hashed
added, changed    hashed; decoded and embedded unless the content is known from elsewhere
removed           dropped; but what lies in a folder that cannot be read now is kept
skipped           no medium, or broken: reported, and not opened again until it changes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from anymodal import __version__
from anymodal.core.errors import AnymodalError
from anymodal.core.locking import exclusive
from anymodal.core.modality import Modality
from anymodal.embeddings.cache_writer import disk_errors
from anymodal.media.segmentation import Limits
from anymodal.search import graphs, store
from anymodal.search.graphs import Advance, GraphFacts
from anymodal.search.identity import identity_of, refuse_other
from anymodal.search.nearest import import_faiss
from anymodal.search.reading import embedded
from anymodal.search.scan import Scan, scan
from anymodal.search.store import Contents, Entry, Header
from anymodal.search.unfinished import Unfinished

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier

LARGE = 200_000
"""Rows from which a search is approximate unless it is asked to be exact."""

Progress = Callable[[str], AbstractContextManager[Advance | None]]
"""Gives a named step of work its progress bar."""


@dataclass
class Report:
    """What a run found and did, in files; rows a modality."""

    unchanged: int = 0
    touched: int = 0
    renamed: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    embedded: int = 0
    """Decoded and embedded in this run: without what an interrupted one had finished."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Path → reason."""
    rows: dict[Modality, int] = field(default_factory=dict)
    """Modality → rows of the index."""
    graphs: dict[Modality, GraphFacts] = field(default_factory=dict)
    """Empty: search is exact."""
    note: str | None = None
    """Why a search is exact although an approximate one was asked for, in one line."""


def update(
    folder: str | Path,
    index: str | Path,
    classifier: ModalityAgnosticClassifier,
    *,
    limits: Limits | None = None,
    rebuild: bool = False,
    ann: bool | None = None,
    ann_from: int = LARGE,
    workers: int = 2,
    progress: Progress | None = None,
) -> Report:
    """Bring the index in the folder `index` up to date with the media below `folder`.

    Parameters
    ----------
    limits: how much of an item is looked at.
    rebuild: start from nothing; needed for an index of another classifier or another folder.
    ann: whether a graph is made for approximate search; None: as it was last asked for, else from
        `ann_from` rows.
    workers: threads that hash and decode ahead.
    progress: gives a named step of work its progress bar.

    An interrupted run loses the work of its last seconds at most: the next one resumes. Raises
    `AnymodalError` where `folder` cannot be read, FAISS is not installed, or `index` cannot be
    written, is being written by another process, or is of another classifier or folder.
    """
    root, place = Path(folder).resolve(), Path(index)
    import_faiss()
    if workers < 1:
        raise AnymodalError(f"at least one worker is needed, not {workers}")
    if not root.is_dir():
        raise AnymodalError(f"{folder} is no folder; give the folder of media to index")
    if place.resolve() == root:
        raise AnymodalError(f"{place} is the folder of media itself; give another with --index")
    limits, bar = limits or Limits(), progress or (lambda title: nullcontext())
    identity = identity_of(classifier, limits)
    refusal = (
        f"another process is writing the index in {place}; wait until it ends, or give another "
        "folder with --index"
    )
    with disk_errors(place), exclusive(place / ".lock", refusal):
        before = None if rebuild or not store.exists(place) else store.read(place)
        old: list[Entry] = []
        if before is not None:
            refuse_other(place, identity, before.header.identity)
            _refuse_root(place, before.header.root, root)
            # another version may read what the one before could not
            same_version = before.header.anymodal == __version__
            entries = (Entry(**row) for row in before.table.to_pylist())
            old = [entry for entry in entries if same_version or entry.error is None]
        unfinished = Unfinished(place, identity)
        known = {e.sha256: e for e in [*old, *unfinished.entries()] if e.sha256 is not None}
        looked_at = scan(root, place)
        unchanged = {(entry.path, entry.size, entry.mtime_ns): entry for entry in old}
        files = [unchanged[file] for file in looked_at.files if file in unchanged]
        todo = [file for file in looked_at.files if file not in unchanged]
        report = Report()
        with bar("index") as advance:
            for read in embedded(root, todo, classifier, limits, known, workers):
                new = {e.sha256: e for e in read if e.sha256 and (e.embedded or e.error)}
                report.embedded += sum(entry.embedded for entry in read)
                known.update(new)
                unfinished.save([*new.values()])
                files += [_completed(entry, known) for entry in read]
                if advance:
                    advance(len(files), len(looked_at.files))
        files += _unread(looked_at, old)
        _count(report, old, files)
        choice = ann if ann is not None or before is None else before.header.ann
        header = Header(root=str(root), identity=identity, ann=choice, anymodal=__version__)
        contents = Contents.of(header, files)
        rows = {modality: len(vectors) for modality, vectors in contents.vectors.items()}
        if choice or (choice is None and sum(rows.values()) >= ann_from):
            report.graphs = _graphs(place, contents, before, bar)
            if not report.graphs:
                report.note = f"searched exactly: no modality has {graphs.LEAST:,} rows"
        contents = replace(contents, header=header.model_copy(update={"graphs": report.graphs}))
        same = before is not None and contents.table.equals(before.table)
        if before is None or not same or contents.header != before.header:
            store.write(place, contents)
        unfinished.clear()
    report.rows = rows
    return report


def _refuse_root(place: Path, indexed: str, root: Path) -> None:
    # where the indexed folder is gone it was moved: paths within it are still right
    if indexed != str(root) and Path(indexed).is_dir():
        raise AnymodalError(
            f"{place} holds the index of {indexed}; give another folder with --index, or replace "
            "it with --rebuild"
        )


def _completed(entry: Entry, known: Mapping[str, Entry]) -> Entry:
    """`entry` with what is known of its content."""
    if entry.embedded or entry.error is not None:
        return entry
    content = known[str(entry.sha256)]
    return replace(content, path=entry.path, size=entry.size, mtime_ns=entry.mtime_ns)


def _unread(looked_at: Scan, old: list[Entry]) -> list[Entry]:
    """Entries of what could not be looked at, and of what is known to lie below."""
    kept = {e.path: e for e in old if e.error is None and looked_at.hides(e.path)}
    reasons = {**looked_at.unread, **looked_at.unfit}
    skipped = [Entry(p, None, 0, None, error=why) for p, why in reasons.items() if p not in kept]
    return [*kept.values(), *skipped]


def _count(report: Report, before: list[Entry], files: list[Entry]) -> None:
    old = {entry.path: entry for entry in before if entry.error is None}
    new = {entry.path: entry for entry in files if entry.error is None}
    gone = Counter(entry.sha256 for path, entry in old.items() if path not in new)
    for path, entry in new.items():
        was = old.get(path)
        if was is None and gone[entry.sha256]:
            gone[entry.sha256] -= 1
            report.renamed += 1
        elif was is None:
            report.added += 1
        elif was == entry:
            report.unchanged += 1
        elif was.sha256 == entry.sha256:
            report.touched += 1
        else:
            report.changed += 1
    report.removed = gone.total()
    skipped = {entry.path: entry.error for entry in files if entry.error is not None}
    report.skipped = dict(sorted(skipped.items()))


def _graphs(
    place: Path, contents: Contents, before: Contents | None, bar: Progress
) -> dict[Modality, GraphFacts]:
    """Graphs of `contents`, written: those of the index before, brought up to date, or new ones."""
    former = before.header.graphs if before is not None else {}
    if before is not None and former and contents.table.equals(before.table):
        return former
    made: dict[Modality, GraphFacts] = {}
    for modality, vectors in contents.vectors.items():
        if len(vectors) < graphs.LEAST:
            continue
        graph = None
        if before is not None and modality in former:
            graph = store.read_graph(place, former[modality])
            was, now = (of.rows(modality)[["path", "sha256"]] for of in (before, contents))
            moved = pd.MultiIndex.from_frame(now).get_indexer(pd.MultiIndex.from_frame(was))
            graph = graph if graphs.renumber(graph, moved, vectors) else None
        if graph is None:
            with bar(f"graph of {modality}") as advance:
                graph = graphs.build(vectors, advance)
        facts = graphs.measure(graph, modality, contents.vectors)
        made[modality] = replace(facts, file=store.write_graph(place, modality, graph))
    return made
