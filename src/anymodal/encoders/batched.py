"""Batching, errors that name the item, and identity, for networks of any framework.

A family gives `_windows` (an item → what the network sees) and `_run` (a stack of those →
embeddings); in PyTorch it subclasses `anymodal.encoders.torch_encoder.TorchEncoder`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.encoders.precision import Precision
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.weights.tensors import Tensors, fingerprint, write_weights


class BatchedEncoder(ABC):
    """A frozen network as an `anymodal.encoders.base.Encoder`.

    Parameters
    ----------
    preprocessing: what is done to an item before the network, and which output is the embedding;
        any change of these must change the text, for it is part of `version`.
    windows_per_pass: bounds the memory of a forward pass, whatever the batch holds.
    """

    precision: Precision = "float32"
    """Type that the network computes in."""

    def __init__(
        self, info: EncoderInfo, tensors: Tensors, preprocessing: str, windows_per_pass: int
    ) -> None:
        self.name, self.modality, self.dim = info.name, info.modality, info.dim
        self.sample_rate, self.image_size = info.sample_rate, info.image_size
        self._pass = windows_per_pass
        self._version = _digest(f"{preprocessing}\n{fingerprint(tensors)}")

    @property
    def version(self) -> str:
        """16 hex digits over weights, preprocessing and precision; the same on every platform."""
        if self.precision == "float32":
            return self._version
        return _digest(f"{self._version}\n{self.precision}")

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        """Embed items (see `anymodal.encoders.base`) as float32 (len(batch), dim).

        Raises `AnymodalError` for an item of the wrong type, shape or content.
        """
        return self._pooled(batch, self._windows)

    def prepare(self, item: np.ndarray) -> np.ndarray:
        """See `anymodal.encoders.base.PreparingEncoder`: (windows, ...), in the order of time."""
        try:
            return np.stack(list(self._windows(item)))
        except AnymodalError as error:
            raise AnymodalError(f"{self.name}: item {error}") from error

    def embed_prepared(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        """See `anymodal.encoders.base.PreparingEncoder`."""
        return self._pooled(batch, iter)

    def preparation(self) -> Callable[[np.ndarray], np.ndarray]:
        """See `anymodal.encoders.base.PreparingEncoder`."""
        # `_windows` goes by sizes and names alone; whatever else there is belongs to the network
        plain = {n: v for n, v in vars(self).items() if isinstance(v, str | int | float)}
        return partial(_prepare, type(self), plain)

    def _pooled(
        self,
        batch: Sequence[np.ndarray],
        windows_of: Callable[[np.ndarray], Iterator[np.ndarray]],
    ) -> np.ndarray:
        sums = np.zeros((len(batch), self.dim), dtype=np.float64)
        counts = np.zeros(len(batch), dtype=np.int64)
        pairs = self._rows(batch, windows_of)
        while part := list(islice(pairs, self._pass)):
            rows, windows = zip(*part, strict=True)
            np.add.at(sums, list(rows), self._run(np.stack(windows)))
            np.add.at(counts, list(rows), 1)
        return (sums / counts[:, None]).astype(np.float32)

    def _rows(
        self,
        batch: Sequence[np.ndarray],
        windows_of: Callable[[np.ndarray], Iterator[np.ndarray]],
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The windows of all items, each with the row of its item."""
        for row, item in enumerate(batch):
            try:
                for window in windows_of(item):
                    yield row, window
            except AnymodalError as error:
                raise AnymodalError(f"{self.name}: item {row} {error}") from error

    def save_weights(self, path: str | Path) -> None:
        """Write the weights as safetensors, for `anymodal.encoders.get(name, weights=path)`."""
        write_weights(path, self._tensors(), self.name, f"anymodal {self.name}")

    @abstractmethod
    def _tensors(self) -> Tensors:
        """The network's weights in float32, whatever the precision it runs in."""

    @abstractmethod
    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        """What the network sees of an item: arrays of one shape and dtype, at least one."""

    @abstractmethod
    def _run(self, windows: np.ndarray) -> np.ndarray:
        """Embeddings float32 (n, dim) of a stack of windows."""


def _prepare(
    kind: type[BatchedEncoder], plain: dict[str, str | int | float], item: np.ndarray
) -> np.ndarray:
    """`prepare` of an encoder that lacks its network."""
    encoder = object.__new__(kind)
    vars(encoder).update(plain)
    return encoder.prepare(item)


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
