"""Folders that weights lie in, and the environment variables that name them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from anymodal.core.errors import AnymodalError

WEIGHTS_VARIABLE = "ANYMODAL_WEIGHTS_DIR"
CACHE_VARIABLE = "ANYMODAL_CACHE_DIR"
OFFLINE_VARIABLE = "ANYMODAL_OFFLINE"


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
    path = (project / folder.expanduser()).absolute()
    if not path.is_dir():
        raise AnymodalError(f"embed.weights_dir names {path}, which is not a folder")
    os.environ[WEIGHTS_VARIABLE] = str(path)


def offline() -> bool:
    """Whether `ANYMODAL_OFFLINE` forbids downloads: set, and neither `0` nor `false`."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false")


def search_folders() -> list[Path]:
    """Where weights are looked for, best first: the user's folder, if any, then the cache."""
    return [folder for folder in (weights_dir(), cache_dir()) if folder is not None]


def cache_dir() -> Path:
    """Folder of converted and downloaded weights; it may not exist yet."""
    import pooch

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
