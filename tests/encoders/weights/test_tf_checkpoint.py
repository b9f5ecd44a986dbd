"""The checkpoint reader, against a plain writer of the same format and the published files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.encoders.weights.tf_checkpoint import read_checkpoint

NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10}


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """A table block with prefix-compressed keys and a restart every three entries."""
    content, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % 3 == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value))
        content += key[shared:] + value
        last = key
    content += struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))
    return content + bytes([kind]) + bytes(4)  # checksums are not read


def write(tensors: dict[str, np.ndarray], shards: int = 1, kind: int = 0) -> tuple[bytes, bytes]:
    """(index, data) of a checkpoint; two entries a data block."""
    data, entries = b"", [(b"", field(1, shards) + field(3, field(1, 1)))]
    for name in sorted(tensors):
        tensor = tensors[name]
        content = tensor.tobytes()
        shape = b"".join(field(2, field(1, size)) for size in tensor.shape)
        value = field(1, NUMBERS[tensor.dtype.name]) + field(2, shape)
        value += field(4, len(data)) + field(5, len(content))
        value += varint(6 << 3 | 5) + bytes(4)
        entries.append((name.encode(), value))
        data += content
    index, handles = b"", []
    for i in range(0, len(entries), 2):
        part = block(entries[i : i + 2], kind)
        handles.append((entries[i : i + 2][-1][0], varint(len(index)) + varint(len(part) - 5)))
        index += part
    footer = b""
    for table in (block([]), block(handles)):
        footer += varint(len(index)) + varint(len(table) - 5)
        index += table
    return index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57), data


TENSORS = {
    "conv2d/kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "conv2d/kernel/Adam": np.ones(3, np.float32),
    "conv2d/bias": np.zeros(0, np.float32),
    "step": np.array(7, np.int64),
    "mask": np.array([True, False]),
}


def test_what_was_written_is_read():
    got = read_checkpoint(*write(TENSORS))
    assert got.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert got[name].dtype == tensor.dtype and got[name].shape == tensor.shape
        np.testing.assert_array_equal(got[name], tensor)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text("ab/é☃", min_size=1), st.lists(st.floats(width=32)), max_size=9))
def test_any_names_and_sizes(values):
    # TensorFlow sorts by bytes
    names = sorted(values, key=str.encode)
    tensors = {name: np.array(values[name], np.float32) for name in names}
    got = read_checkpoint(*write(tensors))
    assert {n: t.tobytes() for n, t in got.items()} == {n: t.tobytes() for n, t in tensors.items()}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_other_tensors(data):
    """Never another exception: what is read is compared with a pinned fingerprint."""
    index, content = write(TENSORS)
    which = data.draw(st.sampled_from([0, 1]))
    pair = [index, content]
    damaged = bytearray(pair[which])
    at = data.draw(st.integers(0, len(damaged) - 1))
    if data.draw(st.booleans()):
        damaged[at] ^= data.draw(st.integers(1, 255))
    else:
        del damaged[at:]
    pair[which] = bytes(damaged)
    try:
        got = read_checkpoint(*pair)
    except AnymodalError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(tensor, np.ndarray) for tensor in got.values())


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (b"", "truncated"),
        (bytes(100), "not a table"),
        (write(TENSORS, shards=2)[0], "sharded"),
        (write(TENSORS, kind=1)[0], "compressed"),
    ],
)
def test_what_is_not_supported_says_so(index, reason):
    with pytest.raises(AnymodalError, match=reason):
        read_checkpoint(index, write(TENSORS)[1])
