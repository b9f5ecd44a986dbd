"""A small folder of media, and encoders that need no weights, to make packs of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from anymodal.core.modality import Modality
from anymodal.data.pack import PackInfo
from anymodal.embeddings.packing import build_pack

RATE = 8000


class Toy:
    """Mean, deviation and a few samples of an item."""

    dim = 5
    image_size = 16
    sample_rate = RATE

    def __init__(self, modality: Modality, name: str = "") -> None:
        self.name = name or f"toy_{modality}"
        self.modality: Modality = modality
        self.version = "v1"
        self.seen = 0

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(batch)
        items = [np.asarray(item, dtype=np.float32) for item in batch]
        return np.array([(i.mean(), i.std(), *i.ravel()[100:103]) for i in items], np.float32)


def toys() -> list[Toy]:
    return [Toy("audio"), Toy("audio", "toy_other"), Toy("image")]


def write_media(root: Path) -> Path:
    """Two classes, two sources, 4 + 4 recordings of 2.5 s and 3 + 3 images; two useless files."""
    rng = np.random.default_rng(0)
    for name in ("banjo", "violin"):
        (root / "audio" / name).mkdir(parents=True)
        (root / "images" / name).mkdir(parents=True)
        for i in range(4):
            source = "philharmonia" if i % 2 else "mystery"
            audio = rng.uniform(-0.9, 0.9, int(2.5 * RATE))
            soundfile.write(root / "audio" / name / f"{source}__{name}{i}.wav", audio, RATE)
        for i in range(3):
            image = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / "images" / name / f"kaggle30__{name}{i}.png")
    (root / "images" / "banjo" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (root / "audio" / "banjo" / "notes.txt").write_text("not audio")
    return root


def build(media: Path, out: Path) -> PackInfo:
    """A pack of `write_media`'s folder: 8 recordings of two windows each, 6 images."""
    return build_pack(media, out, toys(), 2, "toy pack", description="Noise, twice.")
