"""Music classifiers that take whatever modality is at hand: audio, an image, a video.

An implementation of "Exploring modality-agnostic representations for music classification"
(Wu, Fuentes, Bello; SMC 2021, arXiv:2106.01149).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.classifier.prediction import Prediction
    from anymodal.core.errors import AnymodalError, MediaError
    from anymodal.media.segmentation import Audio, Limits

__version__ = "0.1.0"
__all__ = [
    "AnymodalError",
    "Audio",
    "Limits",
    "MediaError",
    "ModalityAgnosticClassifier",
    "Prediction",
]

_MODULES = {
    "AnymodalError": "anymodal.core.errors",
    "Audio": "anymodal.media.segmentation",
    "Limits": "anymodal.media.segmentation",
    "MediaError": "anymodal.core.errors",
    "ModalityAgnosticClassifier": "anymodal.classifier.model",
    "Prediction": "anymodal.classifier.prediction",
}


def __getattr__(name: str) -> Any:
    # on first use: `anymodal --help` imports this package, and must not import torch
    if name not in _MODULES:
        raise AttributeError(f"module 'anymodal' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
