"""Read the tensors of a TensorFlow V2 checkpoint without TensorFlow.

A checkpoint is an index, a LevelDB table from variable name to `BundleEntryProto` (dtype, shape,
place), and a data file of raw bytes. Sources: `tensorflow/core/protobuf/tensor_bundle.proto`, and
LevelDB's `doc/table_format.md`. Read is what `tf.train.Saver` writes: one shard, little endian,
uncompressed, dense. Checksums are not verified: callers pin the SHA-256 of the tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from anymodal.core.errors import AnymodalError

_TABLE_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
"""TensorFlow's `DataType` numbers of the types that have a numpy equal."""


def read_checkpoint(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """Tensors by variable name of `<prefix>.index` and `<prefix>.data-00000-of-00001`.

    Raises `AnymodalError`: truncated, malformed, or of a kind that is not supported.
    """
    try:
        return dict(_tensors(index, data))
    except (IndexError, struct.error, ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise AnymodalError(f"TensorFlow checkpoint is corrupt ({error})") from error


def _tensors(index: bytes, data: bytes) -> Iterator[tuple[str, np.ndarray]]:
    for key, value in _table(index):
        fields = _message(value)
        if not key:  # the header: BundleHeaderProto
            shards, endianness = _last(fields, 1, 0), _last(fields, 2, 0)
            if shards != 1 or endianness != 0:
                raise AnymodalError("TensorFlow checkpoint is sharded or big endian: not supported")
            continue
        name = key.decode()
        dtype = _last(fields, 1, 0)
        if dtype not in _DTYPES or 7 in fields:
            raise AnymodalError(f"TensorFlow checkpoint: {name} is of a type that is not supported")
        dims = [_message(dim) for dim in _message(_last(fields, 2, b"")).get(2, [])]
        shape = tuple(_last(dim, 1, 0) for dim in dims)
        offset, size = _last(fields, 4, 0), _last(fields, 5, 0)
        content = data[offset : offset + size]
        if len(content) != size:
            raise AnymodalError(f"TensorFlow checkpoint: the data file ends before {name}")
        yield name, np.frombuffer(content, dtype=_DTYPES[dtype]).reshape(shape).copy()


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a LevelDB table, sorted by key."""
    if len(content) < _FOOTER_BYTES:
        raise AnymodalError("TensorFlow checkpoint: the index file is truncated")
    footer = content[-_FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != _TABLE_MAGIC:
        raise AnymodalError("TensorFlow checkpoint: the index file is not a table of tensors")
    _, _, at = _handle(footer, 0)  # the meta index: nothing in it
    offset, size, _ = _handle(footer, at)
    for _, handle in _block(content, offset, size):
        block_offset, block_size, _ = _handle(handle, 0)
        yield from _block(content, block_offset, block_size)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    end = offset + size
    if content[end] != 0:
        raise AnymodalError("TensorFlow checkpoint: compressed index blocks are not supported")
    (restarts,) = struct.unpack("<I", content[end - 4 : end])
    end -= 4 + 4 * restarts
    key = b""
    at = offset
    while at < end:
        shared, at = _varint(content, at)
        added, at = _varint(content, at)
        length, at = _varint(content, at)
        key = key[:shared] + content[at : at + added]
        at += added
        yield key, content[at : at + length]
        at += length


def _handle(content: bytes, at: int) -> tuple[int, int, int]:
    """Offset and size that a block handle holds, and where the handle ends."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return offset, size, at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _message(content: bytes) -> dict[int, list]:
    """Fields of a protocol buffer: number → values in order (int or bytes)."""
    fields: dict[int, list] = {}
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(content, at)
        elif kind == 2:
            length, at = _varint(content, at)
            value, at = content[at : at + length], at + length
        elif kind == 5:
            value, at = struct.unpack_from("<I", content, at)[0], at + 4
        elif kind == 1:
            value, at = struct.unpack_from("<Q", content, at)[0], at + 8
        else:
            raise ValueError(f"wire type {kind}")
        fields.setdefault(number, []).append(value)
    return fields


def _last(fields: dict[int, list], number: int, default):  # type: ignore[no-untyped-def]
    return fields[number][-1] if number in fields else default
