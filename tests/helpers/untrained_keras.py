"""Untrained weights of ResNet50 and VGG16 in the layout of the publisher's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anymodal.encoders import registry
from anymodal.encoders.image import keras_model
from helpers.untrained_openl3 import write_h5


def write_untrained(name: str, folder: Path) -> Path:
    """Write `<published name>.h5` (no top) with seeded weights; the path for `registry.get`."""
    info = registry.info(name)
    path = folder / info.files[0].name
    folder.mkdir(parents=True, exist_ok=True)
    keras_model.keras_backend(name)
    model = keras_model.untrained_model(name, "channels_last")
    write_legacy(path, untrained(keras_model.shapes_of(model)), model)
    return path


def untrained(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Weights under which activations neither vanish nor explode, on pixels of deviation 60."""
    random = np.random.default_rng(seed)
    tensors = {}
    for number, (name, shape) in enumerate(shapes.items()):
        if name.endswith("/kernel"):
            scale = np.sqrt(2 / np.prod(shape[:3])) / (60 if number == 0 else 1)
            tensor = np.float32(scale) * random.standard_normal(shape, np.float32)
        elif name.endswith("_3_bn/gamma"):
            tensor = random.uniform(0.2, 0.5, shape)  # a residual stack would grow without bound
        elif name.endswith(("/gamma", "/moving_variance")):
            tensor = random.uniform(0.7, 1.4, shape)
        else:
            tensor = 0.1 * random.standard_normal(shape)
        tensors[name] = tensor.astype(np.float32)
    return tensors


def write_legacy(path: Path, tensors: dict[str, np.ndarray], model) -> None:
    """Keras 2's HDF5 layout: all layers by name, those without weights included."""
    layers = {layer.name: {} for layer in model.layers}
    for name, tensor in tensors.items():
        layer, _, weight = name.partition("/")
        layers[layer][weight] = tensor
    write_h5(path, list(layers.items()))
