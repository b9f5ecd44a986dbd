"""Make an index of a folder, or bring one up to date.

What is told apart, and what it costs:

unchanged         same path, size and time: not opened
touched           same path and content: hashed
renamed           content that lay under a path that is gone: hashed
added, changed    hashed; decoded and embedded unless the content is known from elsewhere
removed           dropped; but what lies in a folder that cannot be read at the moment is kept
skipped           no medium, or broken: told, and not opened again until it changes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anymodal import __version__
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.media.segmentation import Limits
from anymodal.search import graphs, store
from anymodal.search.entries import Entry, entries_of, in_order, rows_table, skipped_table
from anymodal.search.graph_files import Progress, make_graphs
from anymodal.search.identity import identity_of
from anymodal.search.index import refuse_other
from anymodal.search.journal import Journal
from anymodal.search.reading import embedded
from anymodal.search.scan import Scan, Seen, scan
from anymodal.search.store import Contents

if TYPE_CHECKING:
    from anymodal.search.identity import Embedder

LARGE = 200_000
"""Rows from which a search is approximate unless it is asked to be exact."""


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
    graphs: dict[str, Any] = field(default_factory=dict)
    """Modality → breadth, k, recall by modality of the query, queries; empty: search is exact."""
    note: str | None = None
    """Why a search is exact although an approximate one was due, in one line."""


def update(
    folder: str | Path,
    index: str | Path,
    classifier: Embedder,
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
        `ann_from` rows where FAISS is installed.
    workers: threads that hash and decode ahead.
    progress: gives a named step of work its progress bar.

    An interrupted run loses the work of its last seconds at most: the next one goes on. Raises
    `AnymodalError` where `folder` cannot be read, or `index` cannot be written, is being written by
    another process, or is of another classifier or folder.
    """
    root, place = Path(folder).resolve(), Path(index)
    if workers < 1:
        raise AnymodalError(f"at least one worker is needed, not {workers}")
    if ann:
        graphs.require()
    if not root.is_dir():
        raise AnymodalError(f"{folder} is no folder; give the folder of media to index")
    if place.resolve() == root:
        raise AnymodalError(f"{place} is the folder of media itself; give another with --index")
    limits = limits or Limits()
    identity = identity_of(classifier, limits)
    with store.locked(place):
        before = None if rebuild or not store.exists(place) else store.read(place)
        if before is not None:
            refuse_other(before, identity)
            store.refuse_root(place, before.header["root"], root)
        journal = Journal(place, identity, root, rebuild)
        known = _Known(before, journal.entries)
        found = scan(root, place)
        report = Report()
        read = _Reading(root, classifier, limits, workers, progress)
        files = [*read(found, known, journal, report), *_unread(found, known)]
        _count(report, known.before, files)
        choice = ann if ann is not None or before is None else before.header["ann"]
        facts = {
            "root": str(root),
            "identity": identity,
            "ann": choice,
        }
        contents = _written(place, facts, files, before)
        told: dict[str, Any] = {}
        wanted, report.note = _wanted(choice, contents, ann_from)
        if wanted:
            told = make_graphs(contents, before, progress)
        header = {**contents.header, **facts, "anymodal": __version__, "graphs": told}
        if before is None or header != before.header:
            contents = store.publish(contents, header)
        store.tidy(place, header)
        journal.clear()
    report.rows = contents.counts
    report.graphs = told
    return report


class _Known:
    """What is known of files from the index before and from unfinished work."""

    def __init__(self, before: Contents | None, unfinished: Iterable[Entry]) -> None:
        self.before: list[Entry] = []
        if before is not None:
            self.before = entries_of(before.rows, before.vectors, before.skipped)
            if before.header["anymodal"] != __version__:
                # this version may read what that one could not
                self.before = [entry for entry in self.before if entry.error is None]
        self.by_path: dict[str, Entry] = {}
        self.by_hash: dict[str, Entry] = {}
        self.add([*self.before, *unfinished])

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.size is not None:
                self.by_path[entry.path] = entry
                if entry.sha256 is not None:
                    self.by_hash[entry.sha256] = entry

    def at(self, seen: Seen) -> Entry | None:
        """The entry of a file that looks as it did."""
        entry = self.by_path.get(seen.path)
        same = entry and (entry.size, entry.mtime_ns) == (seen.size, seen.mtime_ns)
        return entry if same else None

    def completed(self, entry: Entry) -> Entry:
        """`entry` with what is known of its content."""
        if entry.vectors or entry.error is not None:
            return entry
        of = self.by_hash[str(entry.sha256)]
        return replace(entry, kind=of.kind, seconds=of.seconds, vectors=of.vectors, error=of.error)


@dataclass(frozen=True)
class _Reading:
    root: Path
    classifier: Embedder
    limits: Limits
    workers: int
    progress: Progress | None

    def __call__(self, found: Scan, known: _Known, journal: Journal, report: Report) -> list[Entry]:
        """Every file that was seen, known or read now; what is finished is saved in any case."""
        settled, todo = [], []
        for seen in found.files:
            entry = known.at(seen)
            if entry is None:
                todo.append(seen)
            else:
                settled.append(entry)
        work = embedded(self.root, todo, self.classifier, self.limits, known.by_hash, self.workers)
        with self.progress("index") if self.progress else nullcontext() as advance:
            try:
                for entries in work:
                    report.embedded += sum(bool(entry.vectors) for entry in entries)
                    known.add(e for e in entries if e.vectors or e.error is not None)
                    complete = [known.completed(entry) for entry in entries]
                    known.add(complete)
                    journal.add(complete)
                    settled += complete
                    if advance:
                        advance(len(settled), len(found.files))
            finally:
                journal.save()
        return settled


def _unread(found: Scan, known: _Known) -> list[Entry]:
    """Entries of what could not be looked at, and of what is known to lie below."""
    kept = {e.path: e for e in known.before if e.error is None and found.hides(e.path)}
    told = {**found.unread, **found.unfit}
    skipped = [Entry(p, None, 0, None, error=why) for p, why in told.items() if p not in kept]
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
    report.skipped = {e.path: e.error for e in sorted(files, key=_path) if e.error is not None}


def _path(entry: Entry) -> str:
    return entry.path


def _written(
    place: Path, facts: dict[str, Any], files: list[Entry], before: Contents | None
) -> Contents:
    """The index's tables and vectors; those of the index before where nothing has changed."""
    rows, skipped = in_order(files), skipped_table(files)
    same = before is not None and skipped.equals(before.skipped)
    if before is not None and same and rows_table(rows).equals(before.rows):
        return before
    return store.write(place, facts, rows, skipped)


def _wanted(choice: bool | None, contents: Contents, ann_from: int) -> tuple[bool, str | None]:
    """Whether to make graphs, and why not although they are due."""
    rows = len(contents.rows)
    if not (choice or (choice is None and rows >= ann_from)):
        return False, None
    if not graphs.available():
        return False, (
            f"{rows:,} rows are searched exactly, for FAISS is not installed: pip install "
            '"anymodal[search]" and index again for an approximate search'
        )
    if max(contents.counts.values()) < graphs.LEAST:
        return False, f"searched exactly: no modality has {graphs.LEAST:,} rows"
    return True, None
