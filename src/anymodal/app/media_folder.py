"""The media of the training clips: what lies in one folder, and nothing outside it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from anymodal import archive, media
from anymodal.app.previews import picture_address, sound_address
from anymodal.encoders.base import Modality
from anymodal.errors import AnymodalError

SOUND_S, SOUND_RATE = 2.0, 16_000
"""Seconds of a clip that are played, from its start on, and their rate in Hz."""


class MediaFolder:
    """Previews of media by their paths in a dataset.

    `root` is the dataset's folder. Where a path leads out of it, by `..`, by being absolute or by
    a link, there is no medium. Safe to use from threads.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise AnymodalError(f"{root} is not a folder; --media takes the dataset's folder")
        self.root = root.resolve()
        self._cached = lru_cache(maxsize=512)(self._preview)

    def locate(self, path: str) -> Path | None:
        """The file that a dataset calls `path`, or the member of a tar file; None if it is not in
        the folder."""
        if not path or "\0" in path:
            return None
        plain = self._inside(path)
        if plain is not None:
            return plain
        parts = archive.split_member(path)
        if parts is None:
            return None
        tar = self._inside(str(parts[0]))
        # a member is read out of the tar file and never becomes a path
        return None if tar is None else Path(archive.member_path(tar, parts[1]))

    def preview(self, path: str, modality: Modality, start_s: float) -> str | None:
        """The `data:` address of a clip's sound or picture; None where it cannot be had."""
        return self._cached(path, modality, float(start_s))

    def _preview(self, path: str, modality: Modality, start_s: float) -> str | None:
        found = self.locate(path)
        if found is None:
            return None
        try:
            if modality == "audio":
                return sound_address(
                    media.load_audio(found, SOUND_RATE, start_s, SOUND_S), SOUND_RATE
                )
            if media.sniff(found) == "image":
                return picture_address(media.load_image(found))
            return picture_address(media.load_frame(found, start_s))
        except (AnymodalError, OSError):
            return None

    def _inside(self, path: str) -> Path | None:
        try:
            found = (self.root / path).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return found if found.is_relative_to(self.root) and found.is_file() else None
