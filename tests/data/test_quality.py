"""Silence, blankness and size, against plain references and real files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from anymodal.dataset.clips import COLUMNS
from anymodal.dataset.quality import (
    SILENT_DBFS,
    Trace,
    appearance,
    empty_quality,
    loudness,
    measure,
    read_quality,
)
from anymodal.errors import AnymodalError

RATE = 48_000


def table(*rows) -> pd.DataFrame:
    """Rows of (clip_id, audio, image, start_s)."""
    frame = pd.DataFrame(rows, columns=["clip_id", "audio", "image", "start_s"])
    return frame.assign(**{name: None for name in COLUMNS if name not in frame})


@pytest.fixture
def folder(tmp_path):
    time = np.arange(2 * RATE) / RATE
    sound = np.where(time < 1, 0.0, 0.5 * np.sin(2 * np.pi * 440 * time))
    soundfile.write(tmp_path / "late.wav", sound, RATE)
    Image.new("RGB", (90, 40), "navy").save(tmp_path / "plain.png")
    board = np.indices((300, 260)).sum(axis=0) % 2 * 255
    Image.fromarray(np.repeat(board[:, :, None], 3, 2).astype(np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "plain.png").read_bytes()[:40])
    return tmp_path


def test_levels_by_hand():
    square = np.array([1, -1] * 50, np.float32)
    assert loudness(square) == {"rms_dbfs": 0.0, "peak_dbfs": 0.0}
    assert loudness(square / 1000)["rms_dbfs"] == pytest.approx(-60, abs=1e-4)
    for nothing in (np.zeros(7, np.float32), np.zeros(0, np.float32)):
        assert loudness(nothing) == {"rms_dbfs": SILENT_DBFS, "peak_dbfs": SILENT_DBFS}


def test_contrast_against_a_loop():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    grey = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in pixels.reshape(-1, 3).tolist()]
    mean = sum(grey) / len(grey)
    deviation = (sum((each - mean) ** 2 for each in grey) / len(grey)) ** 0.5
    assert appearance(pixels) == {"contrast": pytest.approx(deviation, rel=1e-5), "short_side": 3}


def test_each_window_and_picture_is_judged_by_itself(folder):
    clips = table(
        ("silent", "late.wav", None, 0.0),
        ("loud", "late.wav", None, 1.0),
        ("blank", None, "plain.png", 0.0),
        ("busy", None, "b.png", 0.0),
        ("torn", None, "torn.png", 0.0),
        ("gone", "no.wav", None, 0.0),
    )
    told = []
    found = measure(clips, folder, progress=lambda *at: told.append(at)).set_index("clip_id")
    assert found.index.tolist() == clips["clip_id"].tolist()
    assert found.loc["silent", "rms_dbfs"] < -60
    assert found.loc["loud", "rms_dbfs"] == pytest.approx(20 * np.log10(0.5 / 2**0.5), abs=0.05)
    assert found.loc["loud", "peak_dbfs"] == pytest.approx(20 * np.log10(0.5), abs=0.05)
    assert found.loc["blank", ["contrast", "short_side"]].tolist() == [
        pytest.approx(0, abs=1e-5),
        40,
    ]
    assert found.loc["busy", ["contrast", "short_side"]].tolist() == [pytest.approx(127.5), 260]
    assert found["unreadable"].notna().tolist() == [False] * 4 + [True] * 2
    assert pd.isna(found.loc["blank", "rms_dbfs"]) and found["damage"].isna().all()
    assert told[-1] == (6, 6)


def test_what_is_known_is_not_looked_at_again(folder):
    clips = table(("a", "late.wav", None, 1.0), ("b", None, "b.png", 0.0))
    path = folder / "quality.parquet"
    first = measure(clips, folder, save=path, tracer=lambda *names: Trace(names[0], 0.5, None))
    (folder / "late.wav").unlink()
    more = table(("c", None, "plain.png", 0.0), ("a", "late.wav", None, 1.0))
    again = measure(more, folder, read_quality(path), save=path)
    assert again["clip_id"].tolist() == ["c", "a"]
    pd.testing.assert_series_equal(again.iloc[1], first.iloc[0], check_names=False)
    pd.testing.assert_frame_equal(read_quality(path), again)


def test_nothing_to_look_at(folder):
    assert len(measure(table(), folder)) == 0
    assert len(read_quality(folder / "none.parquet")) == 0
    assert measure(table(), folder).columns.tolist() == empty_quality().columns.tolist()


def test_a_damaged_table_is_one_line(folder):
    (folder / "quality.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(AnymodalError, match="is damaged.*remove it and run again"):
        read_quality(folder / "quality.parquet")
