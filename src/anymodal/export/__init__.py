"""A classifier in ONNX, for programs without PyTorch, scikit-learn or Python: docs/onnx.md."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anymodal.export.exporting import export
    from anymodal.export.runner import OnnxClassifier

__all__ = ["OnnxClassifier", "export"]


_MODULES = {"OnnxClassifier": "runner", "export": "exporting"}


def __getattr__(name: str) -> Any:
    # the runner must not load what only the export needs, nor the reverse
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"anymodal.export.{_MODULES[name]}"), name)
