"""Training rows that a classifier keeps: the nearest ones, and saving."""

import numpy as np
import pandas as pd
import pytest

from anymodal.classifier.reference import COLUMNS, TABLE, Reference
from anymodal.core.errors import AnymodalError


@pytest.fixture
def reference():
    vectors = np.random.default_rng(0).standard_normal((40, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
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
    return Reference(table[list(COLUMNS)], vectors.astype(np.float32))


def test_the_nearest_rows_have_the_highest_cosine(reference):
    vector = reference.vectors[7]
    nearest = reference.nearest(vector, 5, "audio")
    assert nearest[0].clip_id == "c7" and nearest[0].cosine == pytest.approx(1, abs=1e-6)
    own = [n for n in range(40) if n % 3]
    slow = sorted(own, key=lambda n: -float(np.dot(reference.vectors[n], vector)))[:5]
    assert [row.clip_id for row in nearest] == [f"c{n}" for n in slow]
    assert np.allclose([row.cosine for row in nearest], reference.vectors[slow] @ vector)
    first = nearest[0]
    assert (first.path, first.start_s, first.instrument, first.modality) == (
        "7.wav", 3.5, "oboe", "audio",
    )  # fmt: skip
    assert {row.modality for row in reference.nearest(vector, 99, "image")} == {"image"}


def test_few_rows_and_none(reference):
    vector = reference.vectors[0]
    assert len(reference.nearest(vector, 999, "image")) == 14
    assert reference.nearest(vector, 0, "image") == []
    own = (reference.table["modality"] == "audio").to_numpy()
    only_audio = Reference(reference.table[own], reference.vectors[own])
    assert only_audio.nearest(vector, 3, "image") == []
    assert only_audio.nearest(reference.vectors[1], 1, "audio")[0].clip_id == "c1"
    empty = Reference(reference.table[:0], reference.vectors[:0])
    assert empty.nearest(vector, 3, "audio") == []


def test_saving_and_loading_is_exact(reference, tmp_path):
    assert Reference.load(tmp_path) is None
    reference.save(tmp_path)
    loaded = Reference.load(tmp_path)
    assert np.array_equal(loaded.vectors, reference.vectors)
    pd.testing.assert_frame_equal(loaded.table, reference.table, check_dtype=False)
    vector = reference.vectors[3]
    assert loaded.nearest(vector, 9, "audio") == reference.nearest(vector, 9, "audio")
    Reference(reference.table[:0], reference.vectors[:0]).save(tmp_path)
    assert len(Reference.load(tmp_path).table) == 0


def test_tables_and_vectors_that_do_not_match_are_refused(reference):
    for table, vectors in (
        (reference.table, reference.vectors[1:]),
        (reference.table, reference.vectors[:9, 0]),
        (reference.table.drop(columns="path"), reference.vectors),
    ):
        with pytest.raises(AnymodalError, match="no reference"):
            Reference(table, vectors)


def test_damaged_files_are_refused(reference, tmp_path):
    contents = [b"", b"torn"]
    for table in (reference.table, reference.table.assign(vector=["x"] * 40)):
        table.to_parquet(tmp_path / TABLE)
        contents.append((tmp_path / TABLE).read_bytes())
    for content in contents:
        (tmp_path / TABLE).write_bytes(content)
        with pytest.raises(AnymodalError, match="no readable"):
            Reference.load(tmp_path)
