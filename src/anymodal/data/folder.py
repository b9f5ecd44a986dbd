"""A folder of media, sorted into class folders, as a clip table.

    <root>/images/<class>/…   images, in sub-folders if you like
    <root>/audio/<class>/…    recordings

Any class names will do; common spellings of the paper's 18 instruments become those classes and
get their AudioSet node as label. Audio and images belong together only by class (`pairing` is
`class`), even where two files share a name.

clip_id   first 16 hex digits of SHA-256 over the file's SHA-256 and `start_s`.
source    what precedes `__` in the file's name, else the name of the root.
group     windows of a file; parts of a take (`takes`); recordings that decode to the same samples;
          near-duplicate images (`nearduplicates`). Named by the path of its first file.
Skipped   unknown types, unreadable files, files outside a class folder; all but the first of
          identical files; identical files under two classes, which contradict each other.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from anymodal.core.errors import AnymodalError
from anymodal.data.clips import COLUMNS
from anymodal.data.info import SkippedFile
from anymodal.data.nearduplicates import Fingerprint, components, fingerprint, near_duplicates
from anymodal.data.takes import take_of
from anymodal.media import decoding
from anymodal.ontology import instruments

_FOLDERS = {"image": "images", "audio": "audio"}
_SUFFIXES = {
    "image": "jpg jpeg jpe jfif png webp gif bmp tif tiff avif heic heif",
    "audio": "wav flac ogg oga opus mp3 m4a aac aif aiff aifc au caf wma mka mp4 mov mkv webm",
}
_CHECK_RATE = 16_000
"""Hz at which recordings are decoded to see that they can be, and whether two are the same."""


class _File(NamedTuple):
    path: str
    modality: str
    instrument: str
    source: str


class _Content(NamedTuple):
    digest: str
    starts: tuple[float, ...]
    likeness: Fingerprint | str
    """Fingerprint of an image; digest of a recording's samples."""


def scan_folder(
    root: Path,
    windows: int = 3,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pd.DataFrame, list[SkippedFile]]:
    """Return the clip table of `root` (subset and split null) and the files that gave no row.

    Both are ordered by path and depend on the folder's content alone. Files are decoded by
    `workers` threads. Raises `AnymodalError` where there is no folder, or nothing usable in it.
    """
    root = Path(root)
    layout = (
        f"expected {root}/images/<class>/*.jpg and {root}/audio/<class>/*.wav "
        "(or other common types), one folder per class"
    )
    if not root.is_dir():
        raise AnymodalError(f"no folder at {root}; {layout}")
    if windows < 1:
        raise AnymodalError(f"windows must be at least 1, not {windows}")
    files, skipped = _listed(root)
    if not files:
        example = f" ({skipped[0].path}: {skipped[0].reason})" if skipped else ""
        raise AnymodalError(f"no images or recordings under {root}{example}; {layout}")
    readable: list[tuple[_File, _Content]] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        contents = pool.map(lambda file: _read(root / file.path, file.modality, windows), files)
        for done, (file, content) in enumerate(zip(files, contents, strict=True), start=1):
            if isinstance(content, _Content):
                readable.append((file, content))
            else:
                skipped.append(SkippedFile(path=file.path, reason=content))
            if progress:
                progress(done, len(files))
    kept, refused = _distinct(readable)
    skipped += refused
    if not kept:
        raise AnymodalError(
            f"none of the {len(files)} images and recordings under {root} can be used; "
            f"one of them: {skipped[-1].path}: {skipped[-1].reason}"
        )
    rows = [
        dict.fromkeys(COLUMNS)
        | {
            "clip_id": hashlib.sha256(f"{content.digest}@{start:.3f}".encode()).hexdigest()[:16],
            file.modality: file.path,
            "start_s": start,
            "labels": [node] if (node := instruments.mid(file.instrument)) else [],
            "instrument": file.instrument,
            "source": file.source,
            "group": group,
            "pairing": "class",
        }
        for (file, content), group in zip(kept, _groups(kept), strict=True)
        for start in content.starts
    ]
    clips = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"start_s": "float64"})
    return clips, sorted(skipped, key=lambda skip: skip.path)


def window_starts(duration_s: float, windows: int) -> tuple[float, ...]:
    """Seconds at which the one-second windows of a recording start, in whole milliseconds.

    They are min(`windows`, whole seconds of the recording), at least one, evenly spaced from the
    start to one second before the end. A single window starts at 0 in a recording shorter than two
    seconds, and lies in the middle of a longer one.
    """
    count = min(windows, max(1, int(duration_s)))
    if count == 1:
        starts = [0.0 if duration_s < 2 else (duration_s - 1) / 2]
    else:
        step = (duration_s - 1) / (count - 1)
        starts = [number * step for number in range(count)]
    # downwards, so that no window reaches past the end; the tiny sum keeps 2.0 from being 1.999…
    return tuple(int(start * 1000 + 1e-6) / 1000 for start in starts)


def _listed(root: Path) -> tuple[list[_File], list[SkippedFile]]:
    files: list[_File] = []
    reasons: dict[str, str] = {}
    root_name = root.resolve().name or "folder"
    for modality, folder in _FOLDERS.items():
        for path in walk(root / folder):
            relative = path.relative_to(root)
            name = os.fsencode(relative.as_posix()).decode("utf-8", "replace")
            if name != relative.as_posix():
                reasons[name] = "its name is not valid UTF-8; rename it"
            elif len(relative.parts) < 3:
                reasons[name] = f"not in a class folder; move it to {folder}/<class>/"
            elif path.suffix.lower().removeprefix(".") not in _SUFFIXES[modality].split():
                kind = path.suffix or "no extension"
                reasons[name] = f"unsupported type of {modality} file: {kind}"
            else:
                label = relative.parts[1]
                instrument = instruments.canonical(label) or instruments.normalise(label) or label
                before, mark, _ = path.name.partition("__")
                source = before if mark and before else root_name
                files.append(_File(name, modality, instrument, source))
    return sorted(files), [SkippedFile(path=p, reason=reason) for p, reason in reasons.items()]


def walk(folder: Path) -> Iterator[Path]:
    """Files below `folder`, without hidden ones; linked folders are entered once."""
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
            return _Content(digest, (0.0,), fingerprint(decoding.load_image(path)))
        duration = decoding.audio_duration(path)
        if not duration > 0:
            return "holds no audio"
        starts = window_starts(duration, windows)
        samples = hashlib.sha256(f"{duration:.3f}".encode())
        for start in starts:
            audio = decoding.load_audio(path, _CHECK_RATE, start_s=start)
            samples.update(np.round(audio * 32767).astype(np.int16).tobytes())
        return _Content(digest, starts, samples.hexdigest())
    except (AnymodalError, OSError) as error:
        return " ".join(str(error).split())


def _distinct(
    readable: list[tuple[_File, _Content]],
) -> tuple[list[tuple[_File, _Content]], list[SkippedFile]]:
    """The first of each set of identical files, unless they are in two classes."""
    classes: dict[str, set[str]] = {}
    first: dict[str, str] = {}
    for file, content in readable:
        classes.setdefault(content.digest, set()).add(file.instrument)
        first.setdefault(content.digest, file.path)
    kept, refused = [], []
    for file, content in readable:
        names = sorted(classes[content.digest])
        if len(names) > 1:
            reason = f"the same file is in {' and '.join(names)}; keep the right one"
        elif first[content.digest] != file.path:
            reason = f"duplicate of {first[content.digest]}"
        else:
            kept.append((file, content))
            continue
        refused.append(SkippedFile(path=file.path, reason=reason))
    return kept, refused


def _groups(kept: list[tuple[_File, _Content]]) -> list[str]:
    """Name of each file's group."""
    edges: list[tuple[int, int]] = []
    seen: dict[tuple[str, str], int] = {}
    images: list[int] = []
    prints: list[Fingerprint] = []
    for position, (file, content) in enumerate(kept):
        if isinstance(content.likeness, Fingerprint):
            images.append(position)
            prints.append(content.likeness)
        else:
            for key in (("take", take_of(file.path)), ("samples", content.likeness)):
                edges.append((seen.setdefault(key, position), position))
    alike = np.asarray(images, dtype=np.int64)[near_duplicates(prints)]
    links = np.concatenate([np.asarray(edges, dtype=np.int64).reshape(-1, 2), alike])
    names: dict[int, str] = {}
    labels = components(links, len(kept))
    return [names.setdefault(label, kept[at][0].path) for at, label in enumerate(labels.tolist())]
