import os
import stat

import numpy as np
import pandas as pd
import pytest

from anymodal.core import storage


def test_failure_leaves_the_old_file_and_no_debris(tmp_path):
    target = tmp_path / "deep" / "table.json"
    storage.write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), storage.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert storage.read_json(target) == {"a": 1}
    assert [path.name for path in target.parent.iterdir()] == ["table.json"]


def test_files_obey_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        storage.write_text(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_numpy_values_become_plain_json(tmp_path):
    storage.write_json(tmp_path / "a.json", {"n": np.float32(0.5), "v": np.arange(3), "é": "ü"})
    assert storage.read_json(tmp_path / "a.json") == {"n": 0.5, "v": [0, 1, 2], "é": "ü"}
    with pytest.raises(TypeError, match="object has no JSON form"):
        storage.write_json(tmp_path / "b.json", object())
    assert not (tmp_path / "b.json").exists()


def test_tables_and_bytes_come_back(tmp_path):
    table = pd.DataFrame({"a": ["x", None]})
    storage.write_parquet(tmp_path / "a.parquet", table)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), table)
    storage.write_bytes(tmp_path / "a.bin", b"\x00\x01")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\x01"
