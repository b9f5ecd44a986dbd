"""Previews of the training clips from the dataset's folder, and nothing outside that folder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from anymodal.app.previews import audio_address, image_address
from anymodal.core import archive
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import Modality
from anymodal.media import decoding

AUDIO_S, AUDIO_RATE = 2.0, 16_000
"""Seconds of a clip's audio in its preview, from the clip's start, and their rate in Hz."""


class MediaFolder:
    """Previews of media by their paths in the folder `root`, none of what lies outside of it."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise AnymodalError(f"{root} is not a folder; --media takes the dataset's folder")
        self.root = root.resolve()
        self.preview = lru_cache(maxsize=512)(self._preview)

    def locate(self, path: str) -> Path | None:
        """The file, or member of a tar file, with this path in the dataset; None if it is not in
        the folder."""
        file = self._inside(path)
        parts = archive.split_member(path)
        if file is not None or parts is None:
            return file
        tar = self._inside(str(parts[0]))
        # a member is read out of the tar file and never becomes a path
        return None if tar is None else Path(archive.member_path(tar, parts[1]))

    def _preview(self, path: str, modality: Modality, start_s: float) -> str | None:
        """`data:` address of a clip's audio or image; None if it is missing or damaged."""
        file = self.locate(path)
        if file is None:
            return None
        try:
            if modality == "audio":
                samples = decoding.load_audio(file, AUDIO_RATE, start_s, AUDIO_S)
                return audio_address(samples, AUDIO_RATE)
            if decoding.sniff(file) == "image":
                return image_address(decoding.load_image(file))
            return image_address(decoding.load_frame(file, start_s))
        except (AnymodalError, OSError):
            return None

    def _inside(self, path: str) -> Path | None:
        try:
            file = (self.root / path).resolve(strict=True)
        # ValueError: a null character
        except (OSError, RuntimeError, ValueError):
            return None
        return file if file.is_relative_to(self.root) and file.is_file() else None
