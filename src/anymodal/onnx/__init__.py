"""A classifier in ONNX: for programs that have neither PyTorch nor scikit-learn, nor Python.

An export is a versioned directory (`anymodal.onnx.manifest`):

onnx.json                        what is there, and what goes in and comes out
audio.onnx, image.onnx           one-second windows, or prepared pictures → class probabilities
audio_head.onnx, image_head.onnx the encoder's embedding → class probabilities

`export` writes one, `OnnxClassifier` runs one; docs/onnx.md shows both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anymodal.onnx.exporting import export
    from anymodal.onnx.runner import OnnxClassifier

__all__ = ["OnnxClassifier", "export"]


def __getattr__(name: str) -> Any:
    # the runner must not load what only the export needs, nor the other way round
    if name == "OnnxClassifier":
        from anymodal.onnx.runner import OnnxClassifier

        return OnnxClassifier
    if name == "export":
        from anymodal.onnx.exporting import export

        return export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
