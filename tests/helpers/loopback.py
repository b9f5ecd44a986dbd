"""A server on a free port of this machine, and what is sent to it."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

from anymodal.classifier.prediction import Prediction, WindowPrediction
from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import SegmentedItem
from anymodal.serve.app import create_app
from anymodal.serve.limits import ServeLimits
from anymodal.serve.server import listen, make_server
from helpers.encoded import encoded_audio, encoded_image

CLASSES = ("flute", "piano")
RATE = 8000


NETWORKS = {
    "audio": SimpleNamespace(name="loudness", version="1"),
    "image": SimpleNamespace(name="redness", version="2"),
}


@dataclass
class Standing:
    """Answers by rules instead of networks: `flute` by the loudness of audio and the red of
    images; unknown where there is neither."""

    classes: tuple[str, ...] = CLASSES
    sample_rate: int = RATE
    gate: threading.Event | None = None
    """Answers only once it is set."""
    seen: list[list[str]] = field(default_factory=list)
    """Names of the items of every batch."""
    networks: dict = field(default_factory=lambda: NETWORKS)

    def predict_windows(self, items: Sequence[SegmentedItem]) -> list[Prediction]:
        self.seen.append([item.item for item in items])
        if self.gate is not None:
            assert self.gate.wait(30)
        if any(item.item == "refused" for item in items):
            raise AnymodalError("this one is not liked")
        if any(item.item == "bug" for item in items):
            raise RuntimeError("a bug")
        return [self._answer(item) for item in items]

    def embed_windows(self, items: Sequence[SegmentedItem]) -> list[dict]:
        vectors = []
        for item in items:
            flute = np.mean([self._flute(window) for window in item.windows])
            vector = np.array([flute, 1 - flute], np.float32)
            vectors.append(dict.fromkeys(item.modalities(), vector))
        return vectors

    def _answer(self, item: SegmentedItem) -> Prediction:
        used = "both" if len(item.modalities()) == 2 else item.modalities()[0]
        shares = np.array([self._flute(window) for window in item.windows])
        rows = np.column_stack([shares, 1 - shares])
        return Prediction(
            item.item,
            used,
            self.classes,
            rows.mean(axis=0),
            bool(shares.any()),
            dict.fromkeys(item.modalities(), 0.5),
            tuple(
                WindowPrediction(m.start_s, m.seconds, used, row, bool(row[0]))
                for m, row in zip(item.windows, rows, strict=True)
            ),
        )

    @staticmethod
    def _flute(window) -> float:
        if window.audio is not None:
            return float(np.abs(window.audio).mean())
        return float(window.image[..., 0].mean()) / 255


def small(**changes) -> ServeLimits:
    """Limits for tests: one decoder, and little of everything."""
    values = {
        "decoders": 1,
        "file_bytes": 2 << 20,
        "request_bytes": 4 << 20,
        "held_bytes": 16 << 20,
        "decoded_bytes": 32 << 20,
        "decoder_bytes": 512 << 20,
        "files": 4,
        "decode_s": 10.0,
        "media_s": 100.0,
        "windows": 5,
        "requests": 8,
        "stop_s": 20.0,
    }
    return ServeLimits(**(values | changes))


@dataclass
class Served:
    """A server that runs."""

    address: str
    app: object
    server: object

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@contextmanager
def serving(classifier=None, limits=None, **options) -> Iterator[Served]:
    """A server in a thread, until the block ends."""
    limits = limits or small()
    app = create_app(classifier or Standing(), limits=limits, **options)
    server = make_server(app, limits)
    listening, address = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Served(address, app, server)
    finally:
        server.should_exit = True
        thread.join(40)
        assert not thread.is_alive()


def audio(seconds=1.0, rate=RATE, loudness=0.5, format="WAV") -> bytes:
    """A square wave: its mean loudness is known."""
    samples = np.full(int(seconds * rate), loudness)
    samples[1::2] *= -1
    return encoded_audio(samples, rate, format=format)


def image(colour="red", size=(40, 30), format="PNG") -> bytes:
    """An image of one colour."""
    return encoded_image(Image.new("RGB", size, colour), format)


def noise(size=(200, 200), format="JPEG") -> bytes:
    """An image that cannot be packed much."""
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    return encoded_image(Image.fromarray(pixels), format)


def png_of(width: int, height: int, rows: int) -> bytes:
    """A grey PNG that claims any size and holds `rows` black rows, which take next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    packer = zlib.compressobj(9)
    block = bytes((width + 1) * 100)
    body = b"".join(packer.compress(block) for _ in range(rows // 100)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


class StandingIndex:
    """Three rows; the contract of `anymodal.search.Index` that is used."""

    rows = pd.DataFrame(
        {
            "path": ["a.wav", "b.jpg", "c.wav"],
            "modality": ["audio", "image", "audio"],
            "kind": ["audio", "image", "audio"],
            "seconds": [1.0, 0.0, 2.0],
            "sha256": ["0", "1", "2"],
        }
    )
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1]])

    def search(self, vectors, k=10, modality=None):
        cosines = vectors @ self.vectors.T
        wanted = [i for i in range(3) if modality in (None, self.rows["modality"][i])]
        order = np.array([sorted(wanted, key=lambda i: -row[i])[:k] for row in cosines])
        return SimpleNamespace(rows=order, cosines=np.take_along_axis(cosines, order, 1))
