"""Untrained weights of OpenL3 in the publisher's format, that of Keras 2's `save_weights`."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

Layers = list[tuple[str, dict[str, np.ndarray]]]
FILTERS = (64, 64, 128, 128, 256, 256, 512, 512)
SEEDS = {"audio": 1, "image": 2}
# mean and standard deviation of what the input normalisation sees
INPUTS = {"audio": (-45.0, 15.0), "image": (0.4, 0.3)}


def layers(modality: str) -> Layers:
    """(name, tensors) of the layers with weights, in Keras's order and layout (HWIO).

    Kernels have He's scale and the normalisations plausible statistics, so that activations keep
    their size from layer to layer.
    """
    rng = np.random.default_rng(SEEDS[modality])
    channels = {"audio": 1, "image": 3}[modality]
    mean, deviation = INPUTS[modality]
    first = _norm(rng, channels)
    first["moving_mean"] = np.full(channels, mean, np.float32)
    first["moving_variance"] = np.full(channels, deviation**2, np.float32)
    found: Layers = [("batch_normalization_1", first)]
    before = channels
    for number, after in enumerate(FILTERS, 1):
        last = number == len(FILTERS)
        name = f"{_BRANCH[modality]}_embedding_layer" if last else f"conv2d_{number}"
        scale = np.float32(np.sqrt(2 / (9 * before)))
        kernel = scale * rng.standard_normal((3, 3, before, after), dtype=np.float32)
        bias = np.float32(0.1) * rng.standard_normal(after, dtype=np.float32)
        found.append((name, {"kernel": kernel, "bias": bias}))
        if not last:
            found.append((f"batch_normalization_{number + 1}", _norm(rng, after)))
        before = after
    return found


def write_untrained(name: str, folder: Path) -> Path:
    """Write untrained weights of the encoder `name`; the path to load them from."""
    modality = name.split("_")[1]
    path = Path(folder) / f"openl3_{modality}_mel256_music.h5"
    write_h5(path, layers(modality))
    return path


def write_h5(path: Path, found: Layers) -> None:
    """Write layers as Keras 2 does, those without weights (activations, pooling) among them."""
    with h5py.File(path, "w") as file:
        names = []
        for number, (name, tensors) in enumerate([("input_1", {}), *found]):
            names += [(name, tensors), (f"activation_{number}", {})]
        file.attrs["layer_names"] = [name.encode() for name, _ in names]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.3.0"
        for name, tensors in names:
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in tensors]
            for key, value in tensors.items():
                group.create_dataset(f"{name}/{key}:0", data=value)


_BRANCH = {"audio": "audio", "image": "vision"}


def _norm(rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    def normal(scale: float) -> np.ndarray:
        return np.float32(scale) * rng.standard_normal(size, dtype=np.float32)

    def around_one() -> np.ndarray:
        return np.float32(0.5) + rng.random(size, dtype=np.float32)

    return {
        "gamma": around_one(),
        "beta": normal(0.2),
        "moving_mean": normal(0.1),
        "moving_variance": around_one(),
    }
