"""Training rows that a classifier keeps: the nearest ones, and saving."""

import numpy as np
import pandas as pd
import pytest

from anymodal.errors import AnymodalError
from anymodal.reference import COLUMNS, TABLE, VECTORS, Reference


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def reference():
    vectors = unit(np.random.default_rng(0).standard_normal((40, 6)))
    table = pd.DataFrame(
        {
            "clip_id": [f"c{n}" for n in range(40)],
            "modality": ["audio" if n % 3 else "image" for n in range(40)],
            "instrument": ["oboe" if n < 20 else "harp" for n in range(40)],
            "source": "hall",
            "path": [f"{n}.wav" for n in range(40)],
            "start_s": np.arange(40) / 2,
        }
    )
    return Reference(table[list(COLUMNS)], vectors)


def test_the_nearest_are_those_of_the_highest_cosine(reference):
    wanted = reference.vectors[7]
    found = reference.nearest(wanted, 5, "audio")
    assert found[0].clip_id == "c7" and found[0].cosine == pytest.approx(1, abs=1e-6)
    own = [n for n in range(40) if n % 3]
    slow = sorted(own, key=lambda n: -float(np.dot(reference.vectors[n], wanted)))[:5]
    assert [one.clip_id for one in found] == [f"c{n}" for n in slow]
    assert (found[0].path, found[0].start_s, found[0].instrument) == ("7.wav", 3.5, "oboe")
    assert {one.modality for one in found} == {"audio"}
    assert {one.modality for one in reference.nearest(wanted, 99, "image")} == {"image"}


def test_few_rows_and_none(reference):
    assert len(reference.nearest(reference.vectors[0], 999, "image")) == 14
    assert reference.nearest(reference.vectors[0], 0, "image") == []
    own = (reference.table["modality"] == "audio").to_numpy()
    sounds = Reference(reference.table[own], reference.vectors[own])
    assert sounds.nearest(reference.vectors[0], 3, "image") == []
    assert sounds.nearest(reference.vectors[1], 1, "audio")[0].clip_id == "c1"
    empty = Reference(reference.table[:0], reference.vectors[:0])
    assert empty.nearest(reference.vectors[0], 3, "audio") == []


def test_saving_and_loading_is_exact(reference, tmp_path):
    assert Reference.load(tmp_path) is None
    reference.save(tmp_path)
    again = Reference.load(tmp_path)
    assert np.array_equal(again.vectors, reference.vectors)
    pd.testing.assert_frame_equal(again.table, reference.table, check_dtype=False)
    vector = reference.vectors[3]
    assert again.nearest(vector, 9, "audio") == reference.nearest(vector, 9, "audio")


def test_what_does_not_fit_is_refused(reference):
    for table, vectors in (
        (reference.table, reference.vectors[1:]),
        (reference.table, reference.vectors[:, 0]),
        (reference.table.drop(columns="path"), reference.vectors),
    ):
        if vectors.ndim == 1:
            vectors = vectors[:9]
        with pytest.raises(AnymodalError, match="no reference"):
            Reference(table, vectors)


@pytest.mark.parametrize("name", [TABLE, VECTORS])
@pytest.mark.parametrize("content", [b"", b"torn"])
def test_broken_files_are_refused(reference, tmp_path, name, content):
    reference.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AnymodalError, match="no readable"):
        Reference.load(tmp_path)
    Reference(reference.table[:5], reference.vectors[:5]).save(tmp_path)
    np.save(tmp_path / VECTORS, reference.vectors[:4])
    with pytest.raises(AnymodalError, match="no readable"):
        Reference.load(tmp_path)
    (tmp_path / VECTORS).unlink()
    with pytest.raises(AnymodalError, match="no readable"):
        Reference.load(tmp_path)
