"""Keras models of keras.applications without classifier, and their weights: `<layer>/<weight>` in
Keras' layout (kernels: height, width, in, out), whichever backend holds them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.encoders.weights.keras_h5 import read_layers
from anymodal.encoders.weights.tensors import Tensors, check_shapes

Backend = Literal["torch", "tensorflow"]
DataFormat = Literal["channels_first", "channels_last"]
_CLASSES = {"resnet50": "ResNet50", "vgg16": "VGG16"}
"""Encoder, as its module of keras.applications is called → class."""


def keras_backend(encoder: str) -> Backend:
    """Import Keras, on PyTorch where nothing else was chosen; the backend that it runs on."""
    chosen = "keras" in sys.modules or "KERAS_BACKEND" in os.environ
    if not chosen:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except ImportError as error:
        missing = error.name == "keras"
        remedy = "pip install 'anymodal[keras]'" if missing else "set KERAS_BACKEND=torch"
        raise AnymodalError(
            f"{encoder} needs Keras, which cannot be imported ({' '.join(str(error).split())}): "
            f"{remedy}"
        ) from error
    finally:
        if not chosen:  # for the first import alone: other programs may choose otherwise
            del os.environ["KERAS_BACKEND"]
    backend = keras.backend.backend()
    if backend not in ("torch", "tensorflow"):
        raise AnymodalError(
            f"{encoder} runs on Keras with PyTorch or TensorFlow, and this process' Keras runs on "
            f"{backend}: set KERAS_BACKEND=torch"
        )
    return backend


def tensors_of(model: Any) -> Tensors:
    """The model's weights, the same on every backend."""
    import keras

    return {
        name: np.asarray(keras.ops.convert_to_numpy(variable.value), np.float32)
        for name, variable in variables(model)
    }


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of `tensors_of(model)`, in the order of the network."""
    return {name: tuple(variable.shape) for name, variable in variables(model)}


def assign(model: Any, tensors: Tensors, encoder: str) -> None:
    """Put `tensors` into `model`; `AnymodalError` unless names and shapes are the model's."""
    check_shapes(tensors, shapes_of(model), encoder)
    for name, variable in variables(model):
        variable.assign(tensors[name])


def published_tensors(path: Path, shapes: dict[str, tuple[int, ...]], encoder: str) -> Tensors:
    """Read the publisher's .h5 as tensors of these names and shapes, layers by name or, where they
    have others (Keras 1), in their order. `AnymodalError` where it is damaged or another network.
    """
    names = list(dict.fromkeys(name.partition("/")[0] for name in shapes))
    layers = read_layers(path)
    ordered = [layers[n] for n in names] if layers.keys() == set(names) else layers.values()
    values = [value for layer in ordered for value in layer.values()]
    if [value.shape for value in values] != list(shapes.values()):
        raise AnymodalError(
            f"{path} does not hold {encoder} without classifier (the file named notop): it has "
            f"{len(layers)} layers with weights, not {len(names)}, or other shapes"
        )
    return dict(zip(shapes, values, strict=True))


def untrained_model(encoder: str, data_format: DataFormat) -> Any:
    """The Keras model without classifier, up to the mean over its last map, in float32."""
    import keras

    config = keras.config
    before = config.image_data_format(), config.floatx(), config.dtype_policy()
    setters = config.set_image_data_format, config.set_floatx, config.set_dtype_policy
    try:
        for setter, value in zip(setters, (data_format, "float32", "float32"), strict=True):
            setter(value)
        build = getattr(keras.applications, _CLASSES[encoder])
        model = build(include_top=False, weights=None, pooling="avg")
    finally:
        for setter, value in zip(setters, before, strict=True):
            setter(value)
    model.trainable = False
    return model


def preprocess(encoder: str, pixels: Any, data_format: str) -> Any:
    import keras

    return getattr(keras.applications, encoder).preprocess_input(pixels, data_format=data_format)


def variables(model: Any) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        for variable in layer.weights:
            yield f"{layer.name}/{variable.name}", variable
