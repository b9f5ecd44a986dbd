"""A folder of media as a clip table: pictures and recordings sorted into class folders.

Layout
------
    <root>/images/<class>/…   pictures, in sub-folders if you like
    <root>/audio/<class>/…    recordings

Any class names will do; common spellings of the paper's 18 instruments become those classes and
get their AudioSet node as label. Nothing here is filmed: a sound and a picture belong together
only by class (`pairing` is `class`), even where two files share a name.

Rules
-----
Windows   n = min(`windows`, whole seconds of the recording), at least one, each of one second,
          evenly spaced from the start to one second before the end, in whole milliseconds; they
          never overlap. A single window starts at 0 in a recording shorter than two seconds, and
          lies in the middle of a longer one.
clip_id   first 16 hex digits of SHA-256 over the file's SHA-256 and `start_s`.
source    what precedes `__` in the file's name, else the name of the root.
group     windows of a file; parts of a take (`takes`); recordings that decode to the same samples;
          near-duplicate pictures (`nearduplicates`). Its name is its first file's path.
Skipped   unknown types, unreadable files, files outside a class folder; all but the first of
          identical files; identical files under two classes, which contradict each other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from anymodal import media
from anymodal.dataset import instruments
from anymodal.dataset.clips import COLUMNS
from anymodal.dataset.nearduplicates import (
    Fingerprint,
    components,
    fingerprint,
    near_duplicates,
)
from anymodal.dataset.takes import take_of
from anymodal.errors import AnymodalError

FOLDERS = {"image": "images", "audio": "audio"}
_IMAGES = "jpg jpeg jpe jfif png webp gif bmp tif tiff avif heic heif"
_AUDIO = "wav flac ogg oga opus mp3 m4a aac aif aiff aifc au caf wma mka mp4 mov mkv webm"
SUFFIXES = {
    modality: frozenset(f".{ending}" for ending in endings.split())
    for modality, endings in (("image", _IMAGES), ("audio", _AUDIO))
}
_CHECK_RATE = 16_000
"""Hz at which recordings are decoded to see that they can be, and whether two are the same."""


@dataclass(frozen=True)
class Skipped:
    """A file that gave no row: its path relative to the root, and the reason in one line."""

    path: str
    reason: str


@dataclass(frozen=True)
class _File:
    path: str
    modality: str
    instrument: str
    source: str


@dataclass(frozen=True)
class _Content:
    digest: str
    starts: tuple[float, ...]
    likeness: Fingerprint | str
    """Fingerprint of a picture; digest of a recording's samples."""


def scan_folder(
    root: Path,
    windows: int = 3,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pd.DataFrame, list[Skipped]]:
    """Clip table of `root` (subset and split null) and the files that gave no row.

    Rows and skipped files are ordered by path; both depend on the folder's content alone. Every
    file is read and decoded once, by `workers` threads; `progress` is told (done, all) from the
    calling thread. Raises `AnymodalError` where there is no folder, or no medium in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise AnymodalError(f"no folder at {root}; {_expected(root)}")
    if windows < 1:
        raise AnymodalError(f"windows must be at least 1, not {windows}")
    files, skipped = _list(root)
    if not files:
        told = f" ({skipped[0].path}: {skipped[0].reason})" if skipped else ""
        raise AnymodalError(f"no pictures or recordings under {root}{told}; {_expected(root)}")
    readable: list[tuple[_File, _Content]] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        contents = pool.map(lambda file: _read(root / file.path, file.modality, windows), files)
        for done, (file, content) in enumerate(zip(files, contents, strict=True), start=1):
            if isinstance(content, _Content):
                readable.append((file, content))
            else:
                skipped.append(Skipped(file.path, content))
            if progress:
                progress(done, len(files))
    kept, refused = _distinct(readable)
    skipped += refused
    if not kept:
        raise AnymodalError(
            f"none of the {len(files)} pictures and recordings under {root} can be used; "
            f"one of them: {skipped[-1].path}: {skipped[-1].reason}"
        )
    groups = _groups(kept)
    rows = [
        (
            hashlib.sha256(f"{content.digest}@{start:.3f}".encode()).hexdigest()[:16],
            file.path if file.modality == "audio" else None,
            file.path if file.modality == "image" else None,
            start,
            [node] if (node := instruments.mid(file.instrument)) else [],
            file.instrument,
            file.source,
            group,
            "class",
            None,
            None,
        )
        for (file, content), group in zip(kept, groups, strict=True)
        for start in content.starts
    ]
    clips = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"start_s": "float64"})
    return clips, sorted(skipped, key=lambda each: each.path)


def window_starts(duration_s: float, windows: int) -> tuple[float, ...]:
    """Seconds at which the one-second windows of a recording start (see the module's rules)."""
    count = min(windows, max(1, int(duration_s)))
    if count == 1:
        return (0.0,) if duration_s < 2 else (_milliseconds((duration_s - 1) / 2),)
    step = (duration_s - 1) / (count - 1)
    return tuple(_milliseconds(number * step) for number in range(count))


def _milliseconds(seconds: float) -> float:
    # downwards, so that no window reaches past the end; the tiny sum keeps 2.0 from being 1.999…
    return int(seconds * 1000 + 1e-6) / 1000


def _list(root: Path) -> tuple[list[_File], list[Skipped]]:
    files: list[_File] = []
    skipped: list[Skipped] = []
    root_name = root.resolve().name or "folder"
    for modality, folder in FOLDERS.items():
        for path in _walk(root / folder):
            relative = path.relative_to(root)
            shown = relative.as_posix()
            try:
                shown.encode()
            except UnicodeEncodeError:
                shown = os.fsencode(shown).decode("utf-8", "replace")
                skipped.append(Skipped(shown, "its name is not valid UTF-8; rename it"))
                continue
            if len(relative.parts) < 3:
                skipped.append(
                    Skipped(shown, f"lies outside a class folder; put it in {folder}/<class>/")
                )
            elif path.suffix.lower() not in SUFFIXES[modality]:
                kind = path.suffix or "without an ending"
                skipped.append(Skipped(shown, f"not a type of {modality} file known here: {kind}"))
            else:
                name = relative.parts[1]
                instrument = instruments.canonical(name) or instruments.normalise(name) or name
                before, mark, _ = path.name.partition("__")
                source = before if mark and before else root_name
                files.append(_File(shown, modality, instrument, source))
    return sorted(files, key=lambda file: file.path), skipped


def _walk(folder: Path) -> Iterator[Path]:
    """Files below `folder`, hidden ones left out; linked folders are entered once."""
    seen: set[Path] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = Path(where).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(where, name) for name in names if not name.startswith("."))


def _read(path: Path, modality: str, windows: int) -> _Content | str:
    """What a file holds, or why it cannot be used."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if modality == "image":
            return _Content(digest, (0.0,), fingerprint(media.load_image(path)))
        duration = media.audio_duration(path)
        if not duration > 0:
            return "holds no sound"
        starts = window_starts(duration, windows)
        samples = hashlib.sha256(f"{duration:.3f}".encode())
        for start in starts:
            sound = media.load_audio(path, _CHECK_RATE, start_s=start, duration_s=1.0)
            if not len(sound):
                return f"holds no sound at {start:g} s"
            samples.update(np.round(sound * 32767).astype(np.int16).tobytes())
        return _Content(digest, starts, samples.hexdigest())
    except (AnymodalError, OSError) as error:
        return " ".join(str(error).split())


def _distinct(
    readable: list[tuple[_File, _Content]],
) -> tuple[list[tuple[_File, _Content]], list[Skipped]]:
    """The first of each set of identical files, unless the set contradicts itself."""
    classes: dict[str, set[str]] = {}
    for file, content in readable:
        classes.setdefault(content.digest, set()).add(file.instrument)
    first: dict[str, str] = {}
    kept: list[tuple[_File, _Content]] = []
    refused: list[Skipped] = []
    for file, content in readable:
        names = sorted(classes[content.digest])
        if len(names) > 1:
            reason = f"the same file is filed under {' and '.join(names)}; keep the right one"
            refused.append(Skipped(file.path, reason))
        elif content.digest in first:
            refused.append(Skipped(file.path, f"duplicate of {first[content.digest]}"))
        else:
            first[content.digest] = file.path
            kept.append((file, content))
    return kept, refused


def _groups(kept: list[tuple[_File, _Content]]) -> list[str]:
    """Name of each file's group."""
    edges: list[tuple[int, int]] = []
    seen: dict[tuple[str, str], int] = {}
    pictures: list[int] = []
    prints: list[Fingerprint] = []
    for position, (file, content) in enumerate(kept):
        if isinstance(content.likeness, Fingerprint):
            pictures.append(position)
            prints.append(content.likeness)
        else:
            for key in (("take", take_of(file.path)), ("samples", content.likeness)):
                edges.append((seen.setdefault(key, position), position))
    alike = np.asarray(pictures, dtype=np.int64)[near_duplicates(prints)]
    links = np.concatenate([np.asarray(edges, dtype=np.int64).reshape(-1, 2), alike])
    names: dict[int, str] = {}
    labels = components(links, len(kept))
    return [names.setdefault(label, kept[at][0].path) for at, label in enumerate(labels.tolist())]


def _expected(root: Path) -> str:
    return (
        f"expected {root}/images/<class>/*.jpg and {root}/audio/<class>/*.wav "
        "(or other common types), one folder a class"
    )
