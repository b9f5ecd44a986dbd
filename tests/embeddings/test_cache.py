"""The cache's files: reading them, refusing what is not whole, replacing them together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.embeddings.cache import EmbeddingCache, EmbeddingNote, Embeddings
from anymodal.embeddings.cache_writer import locked, write_embeddings

NOTE = EmbeddingNote("toy", "audio", "v1", dim=2, rows=3, failed=1)
MATRIX = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
INDEX = pd.DataFrame(
    {"clip_id": ["a", "b", "c", "d"], "row": [0, 1, -1, 2], "error": [None, None, "broken", None]}
)


def write(folder, matrix=MATRIX, note=NOTE):
    with locked(folder, note.encoder):
        write_embeddings(folder, note, INDEX, [matrix[:1], matrix[1:1], matrix[1:]])


@pytest.fixture
def cache(tmp_path):
    write(tmp_path)
    return EmbeddingCache(tmp_path)


def test_what_was_written_is_read(cache):
    toy = cache.open("toy")
    assert isinstance(toy, Embeddings)
    np.testing.assert_array_equal(toy.matrix, MATRIX)
    np.testing.assert_array_equal(np.load(cache.folder / "toy.npy"), MATRIX)
    assert toy.clip_ids.tolist() == ["a", "b", "d"]
    assert (toy.version, toy.dim, toy.note) == ("v1", 2, NOTE)
    assert toy.failures.to_dict("list") == {"clip_id": ["c"], "error": ["broken"]}
    assert cache.encoders == ("toy",)


def test_rows_come_in_the_order_asked_for(cache):
    toy = cache.open("toy")
    np.testing.assert_array_equal(toy.rows_of(["d", "a", "d"]), MATRIX[[2, 0, 2]])
    np.testing.assert_array_equal(toy.rows_of(pd.Series(["b"])), MATRIX[[1]])
    assert toy.rows_of([]).shape == (0, 2)
    assert toy.has([]).shape == (0,)
    assert toy.has(["x", "a", "c", "d"]).tolist() == [False, True, False, True]


def test_missing_and_failed_clips_are_named(cache):
    toy = cache.open("toy")
    with pytest.raises(AnymodalError, match=r"toy embedding of clip 'x': it is not in the cache;"):
        toy.rows_of(["a", "x"])
    with pytest.raises(AnymodalError, match=r"clip 'c': it failed \(broken\) \(2 such clips"):
        toy.rows_of(["c", "y"])


def test_missing_cache_says_what_to_run(cache, tmp_path):
    with pytest.raises(AnymodalError, match=r"no other embeddings.*holds toy.*`anymodal embed`"):
        cache.open("other")
    with pytest.raises(AnymodalError, match="holds nothing"):
        EmbeddingCache(tmp_path / "nowhere").open("toy")
    for name in ("", "../toy", ".hidden", "a/b"):
        with pytest.raises(AnymodalError, match="no name of an encoder"):
            cache.open(name)


def test_version_is_checked(cache):
    assert cache.open("toy", version="v1").version == "v1"
    with pytest.raises(AnymodalError, match=r"toy embeddings.*version v1.*not by v2"):
        cache.open("toy", version="v2")


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "other"])
def test_damage_is_refused_by_file_name(cache, suffix, damage):
    path = cache.folder / f"toy{suffix}"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "other":
        path.write_bytes({".npy": b"\x93NUMPY\x01\x00", ".parquet": b"PAR1"}.get(suffix, b"[1]"))
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    message = r"no toy embeddings" if (damage, suffix) == ("gone", ".json") else rf"toy\{suffix}"
    with pytest.raises(AnymodalError, match=message):
        cache.open("toy")


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"rows": 4}, r"toy\.npy"),
        ({"dim": 3}, r"toy\.npy"),
        ({"dtype": "float16"}, r"toy\.npy"),
        ({"failed": 0}, r"toy\.parquet"),
        ({"encoder": "other"}, r"toy\.json"),
        ({"dtype": "int8"}, r"toy\.json"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(cache, change, culprit):
    path = cache.folder / "toy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(AnymodalError, match=culprit):
        cache.open("toy")


def test_float16_is_read_as_float32(tmp_path):
    write(tmp_path, note=replace(NOTE, dtype="float16"))
    toy = EmbeddingCache(tmp_path).open("toy")
    assert toy.matrix.dtype == np.float16
    assert toy.rows_of(["d"]).dtype == np.float32
    np.testing.assert_array_equal(toy.rows_of(["d"]), [[5, 6]])


def test_too_few_rows_are_not_written(cache):
    with pytest.raises(AssertionError, match="2 rows given, 3 announced"):
        write(cache.folder, MATRIX[:2])
    np.testing.assert_array_equal(cache.open("toy").matrix, MATRIX)


def test_an_error_on_the_way_leaves_the_old_files(cache):
    def blocks() -> Iterator[np.ndarray]:
        yield MATRIX[:2] * 10
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), locked(cache.folder, "toy"):
        write_embeddings(cache.folder, NOTE, INDEX, blocks())
    np.testing.assert_array_equal(cache.open("toy").matrix, MATRIX)
    left = sorted(path.name for path in cache.folder.iterdir())
    assert left == ["toy.json", "toy.npy", "toy.parquet"]


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_writer_that_dies_between_its_renames(cache, renames, monkeypatch):
    """Readers refuse the mixture; the next writer completes it before anything else."""
    real = Path.replace

    def dying(self: Path, target: Path) -> Path:
        moved = [path for path in done if path.startswith("final")]
        if self.name.startswith("final"):
            if len(moved) == renames:
                raise SystemExit
            done.append(self.name)
        return real(self, target)

    done: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(SystemExit):
            write(cache.folder, MATRIX * 10)
    with pytest.raises(AnymodalError, match="half written; run `anymodal embed` again"):
        cache.open("toy")
    with locked(cache.folder, "toy"):
        np.testing.assert_array_equal(cache.open("toy").matrix, MATRIX * 10)


def test_a_writer_that_dies_before_all_is_staged_changes_nothing(cache):
    work = cache.folder / "toy.parts"
    work.mkdir()
    np.save(work / "final.npy", MATRIX * 10)
    (work / ".final.abc.tmp.parquet").write_bytes(b"half")
    np.testing.assert_array_equal(cache.open("toy").matrix, MATRIX)
    write(cache.folder, MATRIX * 7)
    np.testing.assert_array_equal(cache.open("toy").matrix, MATRIX * 7)
    assert not work.exists()


def test_lock_is_one_encoders_and_is_given_back(tmp_path):
    with locked(tmp_path, "toy"):
        with pytest.raises(AnymodalError, match="another process"), locked(tmp_path, "toy"):
            pass
        with locked(tmp_path, "other") as work:
            assert work.is_dir()
        assert not work.exists()
    with locked(tmp_path, "toy"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_of_no_rows(tmp_path):
    note = replace(NOTE, rows=0, failed=0)
    with locked(tmp_path, "toy"):
        write_embeddings(tmp_path, note, INDEX.iloc[:0], [])
    toy = EmbeddingCache(tmp_path).open("toy")
    assert toy.matrix.shape == (0, 2) and toy.clip_ids.tolist() == []
    with pytest.raises(AnymodalError, match="'a'"):
        toy.rows_of(["a"])
