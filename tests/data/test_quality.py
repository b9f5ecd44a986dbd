"""Measures of real files; what was measured before is reused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.data.clips import COLUMNS
from anymodal.data.quality import Trace, empty_quality, measure, read_quality
from helpers.encoded import encoded_video

RATE = 48_000


def table(*rows) -> pd.DataFrame:
    """Rows of (clip_id, audio, image, start_s)."""
    frame = pd.DataFrame(rows, columns=["clip_id", "audio", "image", "start_s"])
    return frame.assign(**{name: None for name in COLUMNS if name not in frame})


@pytest.fixture
def folder(tmp_path):
    time = np.arange(2 * RATE) / RATE
    audio = np.where(time < 1, 0.0, 0.5 * np.sin(2 * np.pi * 440 * time))
    soundfile.write(tmp_path / "late.wav", audio, RATE)
    Image.new("RGB", (90, 40), "navy").save(tmp_path / "plain.png")
    board = np.indices((300, 260)).sum(axis=0) % 2 * 255
    Image.fromarray(np.repeat(board[:, :, None], 3, 2).astype(np.uint8)).save(tmp_path / "b.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:40])
    (tmp_path / "video.mp4").write_bytes(encoded_video())
    return tmp_path


def test_every_window_and_image_is_measured(folder):
    clips = table(
        ("silent", "late.wav", None, 0.0),
        ("loud", "late.wav", None, 1.0),
        ("blank", None, "plain.png", 0.0),
        ("busy", None, "b.png", 0.0),
        ("frame", None, "video.mp4", 2.0),
        ("cut", None, "cut.png", 0.0),
        ("gone", "no.wav", None, 0.0),
    )
    calls = []
    rows = measure(clips, folder, progress=lambda *counts: calls.append(counts))
    rows = rows.set_index("clip_id")
    assert rows.index.tolist() == clips["clip_id"].tolist()
    assert rows.loc["silent", "rms_dbfs"] < -60
    assert rows.loc["loud", "rms_dbfs"] == pytest.approx(20 * np.log10(0.5 / 2**0.5), abs=0.05)
    assert rows.loc["loud", "peak_dbfs"] == pytest.approx(20 * np.log10(0.5), abs=0.05)
    images = rows.loc[["blank", "busy", "frame"]]
    assert images["contrast"].tolist() == pytest.approx([0, 127.5, 0], abs=1)
    assert images["short_side"].tolist() == [40, 260, 48]
    assert rows["unreadable"].notna().tolist() == [False] * 5 + [True] * 2
    assert pd.isna(rows.loc["blank", "rms_dbfs"]) and rows["damage"].isna().all()
    assert calls[-1] == (7, 7)


def test_known_rows_are_not_measured_again(folder, monkeypatch):
    monkeypatch.setattr("anymodal.data.quality._BLOCK", 1)
    clips = table(("a", "late.wav", None, 1.0), ("b", None, "b.png", 0.0))
    path = folder / "quality.parquet"
    first = measure(clips, folder, save=path, tracer=lambda *names: Trace(names[0], 0.5, None))
    (folder / "late.wav").unlink()
    more = table(("c", None, "plain.png", 0.0), ("a", "late.wav", None, 1.0))
    again = measure(more, folder, read_quality(path), save=path)
    assert again["clip_id"].tolist() == ["c", "a"]
    pd.testing.assert_series_equal(again.iloc[1], first.iloc[0], check_names=False)
    pd.testing.assert_frame_equal(read_quality(path), again)


def test_no_clips_and_damaged_tables(folder):
    assert len(measure(table(), folder)) == 0
    assert len(read_quality(folder / "none.parquet")) == 0
    assert measure(table(), folder).columns.tolist() == empty_quality().columns.tolist()
    (folder / "quality.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(AnymodalError, match="is damaged.*remove it and run again"):
        read_quality(folder / "quality.parquet")
