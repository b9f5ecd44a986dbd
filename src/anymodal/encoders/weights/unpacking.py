"""Unpacking downloads: whole or refused, and nothing outside the target.

Archives come from elsewhere: of a tar only plain files and folders with relative names are taken.
Links, devices and names that lead out of the target are refused, not passed over.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from anymodal.core.errors import AnymodalError

_BLOCK = 1 << 20


def unpack(archive: Path, target: Path, kind: str) -> None:
    """Unpack `archive` (`gzip`: one file, `tar.gz`: a folder) to `target`, which does not exist.

    Of a tar whose only content is one folder, that folder becomes `target`.

    Raises
    ------
    AnymodalError: not such an archive, cut off, damaged, empty, or unsafe; OSError: the disk
        refuses a write.
    """
    try:
        with gzip.open(archive) as content:
            if kind == "gzip":
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file, _BLOCK)
            else:
                _unpack_tar(content, target)
                # the checksum of a gzip stands behind the last block of the tar
                while content.read(_BLOCK):
                    pass
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError) as error:
        raise AnymodalError(f"is no whole {kind} archive ({error})") from error


def _unpack_tar(content: gzip.GzipFile, target: Path) -> None:
    parts = target.with_name(f"{target.name}.tar")
    parts.mkdir()
    with tarfile.open(fileobj=content, mode="r|") as tar:
        for member in tar:
            place = parts / _safe(member)
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            source = tar.extractfile(member)
            assert source is not None
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                shutil.copyfileobj(source, file, _BLOCK)
    inside = list(parts.iterdir())
    if not any(path.is_file() for path in parts.rglob("*")):
        raise AnymodalError("is an archive of nothing")
    (inside[0] if len(inside) == 1 and inside[0].is_dir() else parts).rename(target)


def _safe(member: tarfile.TarInfo) -> Path:
    name = PurePosixPath(member.name)
    # a backslash or a colon is a way out on Windows
    if name.is_absolute() or ".." in name.parts or any(c in member.name for c in "\\:\0"):
        raise AnymodalError(f"is unsafe: it holds {member.name!r}, a name that leads out of it")
    if not (member.isfile() or member.isdir()):
        raise AnymodalError(f"is unsafe: it holds {member.name!r}, neither a file nor a folder")
    return Path(*name.parts)
