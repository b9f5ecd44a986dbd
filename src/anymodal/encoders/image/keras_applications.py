"""ResNet50 (He et al., CVPR 2016) and VGG16 (Simonyan and Zisserman, ICLR 2015), trained on
ImageNet, as keras.applications publishes them: two of the paper's image encoders.

Input        the central square of 7/8 of the shorter side, resized to 224 pixels (bilinear, with
             Pillow's anti-aliasing), as both networks were evaluated by their authors; then the
             networks' own `preprocess_input`: blue, green, red, minus the means of ImageNet.
Embedding    mean over the last map (7 × 7): 2048 and 512 values.
Weights      the .h5 files without classifier that keras.applications downloads.
Framework    Keras 3, on PyTorch unless this process's Keras runs on TensorFlow already (or
             KERAS_BACKEND asks for it). Both give the same embeddings up to rounding, and the same
             `version`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.batched import BatchedEncoder
from anymodal.encoders.image import keras_model
from anymodal.encoders.image.preprocessing import fractional_square
from anymodal.encoders.precision import Precision
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.tensorflow_runtime import Place, exact, resolve_place
from anymodal.encoders.torch_encoder import TorchEncoder, resolve_device
from anymodal.encoders.weights.files import locate
from anymodal.encoders.weights.keras_h5 import is_keras_file
from anymodal.encoders.weights.tensors import Tensors, given_weights
from anymodal.encoders.windows import rgb_image

PREPROCESSING = (
    "keras.applications 1: centre square of 0.875 of the shorter side, pillow bilinear to 224 px, "
    "BGR minus ImageNet means; mean of the last map"
)
SIZE = 224
_WINDOWS_PER_PASS = 16


class _KerasModel:
    """What both backends share."""

    name: str
    device: Any
    precision: Precision
    _model: Any

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.name, self._tensors(), str(self.device), self.precision)

    def _tensors(self) -> Tensors:
        return keras_model.tensors_of(self._model)

    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        yield fractional_square(rgb_image(item), SIZE)


class KerasTorchEncoder(_KerasModel, TorchEncoder):
    """One image → 2048 (ResNet50) or 512 (VGG16) values, by Keras on PyTorch."""

    def __init__(self, info: EncoderInfo, model: Any, device: str) -> None:
        self._model = model
        super().__init__(info, model, device, PREPROCESSING)
        for _, variable in keras_model.variables(model):
            if len(variable.shape) == 4:
                _lay_out(variable.value)

    def _front(self, windows: torch.Tensor) -> torch.Tensor:
        import keras

        # Keras moves what it is given to the device of its scope, and without one to any GPU
        with keras.device(str(self.device)):
            pixels = keras_model.preprocess(
                self.name, windows.permute(0, 3, 1, 2).float(), "channels_first"
            )
            return pixels.contiguous(memory_format=torch.channels_last)

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        import keras

        with keras.device(str(self.device)):
            return self._model(windows, training=False)


class KerasTensorFlowEncoder(_KerasModel, BatchedEncoder):
    """One image → 2048 (ResNet50) or 512 (VGG16) values, by Keras on TensorFlow."""

    def __init__(self, info: EncoderInfo, model: Any, place: Place) -> None:
        self._model = model
        self._place = place
        self.device = place.label
        super().__init__(info, self._tensors(), PREPROCESSING, _WINDOWS_PER_PASS)

    def _run(self, windows: np.ndarray) -> np.ndarray:
        import keras
        import tensorflow as tf

        with exact(tf, self._place):
            pixels = keras_model.preprocess(self.name, windows.astype(np.float32), "channels_last")
            return keras.ops.convert_to_numpy(self._model(pixels, training=False))


def load(info: EncoderInfo, device: str, path: Path | None) -> BatchedEncoder:
    """Build an encoder of this family (see `anymodal.encoders.get`).

    `path` is a safetensors file of ours, or the publisher's .h5 file without classifier.
    """
    keras_model.keras_backend(info.name)  # a missing Keras is reported before a download
    if path is not None and is_keras_file(path):
        return _encoder(info, device, path)
    tensors = given_weights(info.name, path)
    return _encoder(info, device, locate(info.name, info.files[0]) if tensors is None else tensors)


def _encoder(info: EncoderInfo, device: str, source: Tensors | Path) -> BatchedEncoder:
    """`source`: tensors as `tensors_of` gives them, or the publisher's file."""
    on_torch = keras_model.keras_backend(info.name) == "torch"
    if on_torch:
        place = Place(str(resolve_device(device)), str(resolve_device(device)))
    else:
        import tensorflow as tf

        place = resolve_place(tf, device)
    import keras

    with keras.device(place.scope):
        # on PyTorch `channels_first` spares a reordering before every convolution
        model = keras_model.untrained_model(
            info.name, "channels_first" if on_torch else "channels_last"
        )
        if isinstance(source, Path):
            source = keras_model.published_tensors(source, keras_model.shapes_of(model), info.name)
        keras_model.assign(model, source, info.name)
    if on_torch:
        return KerasTorchEncoder(info, model, place.label)
    return KerasTensorFlowEncoder(info, model, place)


def _rebuilt(encoder: str, tensors: Tensors, device: str, precision: Precision) -> BatchedEncoder:
    """Undo pickling, in a process whose Keras may run on another backend."""
    built = _encoder(registry.info(encoder), device, tensors)
    if precision != "float32":
        if not isinstance(built, TorchEncoder):
            raise AnymodalError(f"{encoder} computes in float32 only on TensorFlow")
        built.use_precision(precision)
    return built


def _lay_out(kernel: torch.Tensor) -> None:
    """Store a kernel (height, width, in, out) in the order in which PyTorch's convolutions of
    channels-last images read it. Keras hands it over as a view, which would be copied in every
    pass; without the copies ResNet50 takes a fifth less time."""
    filters = kernel.data.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    kernel.data = filters.permute(2, 3, 1, 0)
