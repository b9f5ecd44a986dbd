"""TensorFlow, imported when an encoder that needs it is built and never before.

Its log level and its use of GPU memory are set unless the caller has set them; nothing else is.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from anymodal.core.errors import AnymodalError


class Place(NamedTuple):
    """Where a network runs."""

    label: str
    """In PyTorch's words: `cpu`, `cuda`, `cuda:1`."""
    scope: str
    """In TensorFlow's: `/CPU:0`, `/GPU:1`."""


def import_tensorflow(encoder: str) -> tuple[Any, Any]:
    """The modules tensorflow and tensorflow_hub; `AnymodalError` where one is missing or broken."""
    try:
        first = "tensorflow" not in sys.modules
        if first:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        if first:
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
            _leave_gpu_memory(tf)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports the deprecated pkg_resources
            import tensorflow_hub as hub
    # besides ImportError: a wrong protobuf or Keras shows as TypeError or AttributeError
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise AnymodalError(
            f"{encoder} needs TensorFlow and TensorFlow Hub ({reason}): "
            'run `pip install "anymodal[tf]"`'
        ) from error
    return tf, hub


def resolve_place(tf: Any, device: str) -> Place:
    """Where the device `auto`, `cpu`, `cuda` or `cuda:<n>` is; `AnymodalError` if it is not."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    if device == "cpu" or (device == "auto" and not gpus):
        return Place("cpu", "/CPU:0")
    if device == "auto":
        return Place("cuda", "/GPU:0")
    known = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if known is None or int(known[1] or 0) >= gpus:
        raise AnymodalError(f"TensorFlow has no device {device!r} here: use auto, cpu or cuda")
    return Place(device, f"/GPU:{known[1] or 0}")


@contextmanager
def exact(tf: Any, place: Place) -> Iterator[None]:
    """Run what is inside at `place`, with float32 products that are not shortened to TF32."""
    settings = tf.config.experimental
    shortened = settings.tensor_float_32_execution_enabled()
    settings.enable_tensor_float_32_execution(False)
    try:
        with tf.device(place.scope):
            yield
    finally:
        settings.enable_tensor_float_32_execution(shortened)


def one_line(error: BaseException, most: int = 300) -> str:
    """The message of an exception without line breaks, cut to `most` characters."""
    return " ".join(str(error).split())[:most]


def _leave_gpu_memory(tf: Any) -> None:
    for gpu in tf.config.list_physical_devices("GPU"):
        # RuntimeError: the GPU is in use already, as its user has set it up
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except (RuntimeError, ValueError):
            return
