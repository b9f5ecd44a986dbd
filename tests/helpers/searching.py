"""A small classifier with simple encoders, and folders of media for it, for tests of searching.

Also a program: `python searching.py MEDIA INDEX BATCHES` indexes MEDIA, 4 files a batch,
and after so many batches leaves a file `hanging` beside MEDIA and hangs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.core.modality import Modality
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.pca import fit_pca

RATE = 8000
DIM = 8


class Tones:
    """Loudness of the audio in bands of its spectrum."""

    name, modality, dim, sample_rate, image_size = "tones", "audio", 24, RATE, None

    def __init__(self, version: str = "t1") -> None:
        self.version = version
        self.seen = 0

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(batch)
        bands = [
            [part.mean() for part in np.array_split(np.abs(np.fft.rfft(item, RATE)), self.dim)]
            for item in batch
        ]
        return np.log1p(np.array(bands, dtype=np.float32))


class Colours:
    """Mean colours of an image's nine fields."""

    name, modality, dim, sample_rate, image_size = "colours", "image", 27, None, 48

    def __init__(self, version: str = "c1") -> None:
        self.version = version
        self.seen = 0

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(batch)
        fields = [
            [
                part.mean(axis=(0, 1))
                for rows in np.array_split(item, 3)
                for part in np.array_split(rows, 3, axis=1)
            ]
            for item in batch
        ]
        return (np.array(fields, dtype=np.float32) / 255).reshape(len(batch), self.dim)


def classifier(seed: int = 0, audio: Tones | None = None, forest: int = 0):
    """A real classifier: PCA of made-up rows, and a forest of three trees."""
    audio, image = audio or Tones(), Colours()
    random = np.random.default_rng(seed)
    rows: dict[Modality, np.ndarray] = {
        "audio": random.random((40, audio.dim)).astype(np.float32),
        "image": random.random((40, image.dim)).astype(np.float32),
    }
    projection = fit_pca(rows["audio"], rows["image"], dim=DIM)
    projection.origin = Origin(EncoderRef.of(audio), EncoderRef.of(image), "class", seed)
    trees = RandomForestClassifier(3, random_state=forest)
    trees.fit(projection.project("audio", rows["audio"]), np.repeat(["banjo", "flute"], 20))
    return ModalityAgnosticClassifier(projection, trees, {"audio": audio, "image": image})


def write_audio(path: Path, hertz: float, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * RATE)) / RATE
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * hertz * time_s), RATE)
    return path


def write_image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(path)
    return path


class _Hanging(Tones):
    def __init__(self, batches: int, mark: Path) -> None:
        super().__init__()
        self.batches, self.mark = batches, mark

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self.batches -= 1
        if self.batches < 0:
            self.mark.touch()
            time.sleep(600)
        return super().embed(batch)


if __name__ == "__main__":
    from anymodal.search import reading, update

    reading.BATCH = 4
    media, place, batches = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    update(media, place, classifier(audio=_Hanging(batches, media.parent / "hanging")))
