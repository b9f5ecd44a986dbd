"""Frozen, pretrained encoders: `get` builds one, `register` adds one (docs/encoders.md)."""

from anymodal.encoders.registry import (
    Encoder,
    EncoderInfo,
    WeightFile,
    WeightPackage,
    get,
    info,
    names,
    register,
)

__all__ = [
    "Encoder",
    "EncoderInfo",
    "WeightFile",
    "WeightPackage",
    "get",
    "info",
    "names",
    "register",
]
