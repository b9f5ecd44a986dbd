"""Folders made of real little files, and the instruments beside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.data.clips import read_clips, validate, write_clips
from anymodal.data.folder import scan_folder, window_starts
from helpers.paths import shared

RATE = 8000


def image(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(path)
    return path


def recording(path: Path, seed: int, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(RATE * seconds))
    soundfile.write(path, noise, RATE)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "mine"
    image(root / "images/Guitars/web__a.png", 1)
    image(root / "images/Guitars/deep/er/b.jpg", 2)
    image(root / "images/kazoo/c.PNG", 3)
    recording(root / "audio/acoustic-guitar/a.wav", 1, 3.5)
    recording(root / "audio/kazoo/one.flac", 2, 0.4)
    return root


def test_rows_follow_the_contract(root, tmp_path):
    calls: list[tuple[int, int]] = []
    clips, skipped = scan_folder(root, 3, progress=lambda *counts: calls.append(counts))
    assert skipped == []
    assert calls == [(number, 5) for number in range(1, 6)]
    pd.testing.assert_frame_equal(scan_folder(root, 3, workers=1)[0], clips)
    assert validate(clips).shape[0] == 7
    write_clips(tmp_path / "clips.parquet", clips)
    back = read_clips(tmp_path / "clips.parquet")
    assert back["clip_id"].tolist() == clips["clip_id"].tolist()
    assert set(clips["pairing"]) == {"class"}
    assert clips["subset"].isna().all() and clips["split"].isna().all()
    # files of one name in both modalities are no pair
    assert (clips["audio"].notna() != clips["image"].notna()).all()
    by_path = clips.assign(path=clips["audio"].fillna(clips["image"])).set_index("path")
    facts = by_path[["instrument", "labels", "source", "start_s"]].apply(tuple, axis=1)
    assert facts["images/Guitars/web__a.png"] == ("guitar", ["/m/0342h"], "web", 0.0)
    assert facts["images/Guitars/deep/er/b.jpg"] == ("guitar", ["/m/0342h"], "mine", 0.0)
    assert facts["audio/kazoo/one.flac"] == ("kazoo", [], "mine", 0.0)
    starts = by_path.loc["audio/acoustic-guitar/a.wav", "start_s"]
    assert starts.tolist() == [0.0, 1.25, 2.5]


def test_clip_id_is_the_contents_alone(root):
    clips, _ = scan_folder(root)
    row = clips[(clips["audio"] == "audio/acoustic-guitar/a.wav") & (clips["start_s"] == 1.25)]
    digest = hashlib.sha256((root / "audio/acoustic-guitar/a.wav").read_bytes()).hexdigest()
    expected = hashlib.sha256(f"{digest}@1.250".encode()).hexdigest()[:16]
    assert row["clip_id"].tolist() == [expected]
    (root / "audio/acoustic-guitar/a.wav").rename(root / "audio/kazoo/renamed.wav")
    again, _ = scan_folder(root)
    assert set(again["clip_id"]) == set(clips["clip_id"])


def test_what_cannot_be_used_is_skipped_with_a_reason(root):
    (root / "images/kazoo/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n then nothing")
    (root / "images/kazoo/empty.jpg").write_bytes(b"")
    (root / "images/kazoo/notes.txt").write_text("hello")
    (root / "images/kazoo/README").write_text("hello")
    (root / "images/loose.png").write_bytes((root / "images/kazoo/c.PNG").read_bytes())
    (root / "audio/kazoo/noise.wav").write_bytes(os.urandom(999))
    whole = recording(root / "audio/kazoo/cut.flac", 9, 3).read_bytes()
    (root / "audio/kazoo/cut.flac").write_bytes(whole[: len(whole) // 3])
    image(root / "audio/kazoo/image.png", 5)
    soundfile.write(root / "audio/kazoo/nothing.wav", np.zeros(0), RATE)
    clips, skipped = scan_folder(root)
    assert len(clips) == 7
    reasons = {skip.path: skip.reason for skip in skipped}
    assert list(reasons) == sorted(reasons)
    assert [Path(path).name for path in reasons] == [
        "cut.flac", "image.png", "noise.wav", "nothing.wav", "README", "broken.png", "empty.jpg",
        "notes.txt", "loose.png",
    ]  # fmt: skip
    assert reasons["images/kazoo/notes.txt"].endswith("image file: .txt")
    assert reasons["images/kazoo/README"].endswith("image file: no extension")
    assert "images/<class>/" in reasons["images/loose.png"]
    assert all("\n" not in reason for reason in reasons.values())


def test_identical_files_give_one_row(root):
    shutil.copy(root / "images/kazoo/c.PNG", root / "images/kazoo/a copy of c.png")
    shutil.copytree(root / "images/Guitars", root / "images/guitar")  # the same class
    clips, skipped = scan_folder(root)
    assert len(clips) == 7
    assert [(skip.path, skip.reason) for skip in skipped] == [
        ("images/guitar/deep/er/b.jpg", "duplicate of images/Guitars/deep/er/b.jpg"),
        ("images/guitar/web__a.png", "duplicate of images/Guitars/web__a.png"),
        ("images/kazoo/c.PNG", "duplicate of images/kazoo/a copy of c.png"),
    ]


def test_identical_files_under_two_classes_are_both_refused(root):
    shutil.copy(root / "images/kazoo/c.PNG", root / "images/Guitars/c.png")
    clips, skipped = scan_folder(root)
    assert [skip.path for skip in skipped] == ["images/Guitars/c.png", "images/kazoo/c.PNG"]
    assert all("guitar and kazoo" in skip.reason for skip in skipped)
    assert not clips["image"].str.contains("kazoo", na=False).any()


def test_groups(tmp_path):
    for number, name in enumerate(("C4_L_", "C4_R_", "D4", "E4-chunk1", "E4-chunk2")):
        recording(tmp_path / f"audio/piano/{name}.wav", number, 2.2)
    # the same samples in another container
    samples, rate = soundfile.read(tmp_path / "audio/piano/D4.wav")
    soundfile.write(tmp_path / "audio/piano/other name.flac", samples, rate)
    first = image(tmp_path / "images/piano/one.png", 1)
    Image.open(first).resize((96, 80)).save(tmp_path / "images/piano/two.jpg", quality=60)
    image(tmp_path / "images/piano/three.png", 2)
    clips, skipped = scan_folder(tmp_path)
    assert skipped == []
    path = clips["audio"].fillna(clips["image"]).str.split("/").str[-1]
    groups = path.groupby(clips["group"]).unique().map(sorted).to_dict()
    assert groups == {
        "audio/piano/C4_L_.wav": ["C4_L_.wav", "C4_R_.wav"],
        "audio/piano/D4.wav": ["D4.wav", "other name.flac"],
        "audio/piano/E4-chunk1.wav": ["E4-chunk1.wav", "E4-chunk2.wav"],
        "images/piano/one.png": ["one.png", "two.jpg"],
        "images/piano/three.png": ["three.png"],
    }


def test_links_are_read_once_and_hidden_files_not_at_all(root, tmp_path):
    shutil.move(root / "images/kazoo", tmp_path / "elsewhere")
    (root / "images/kazoo").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/loop").symlink_to(root / "images", target_is_directory=True)
    for name in ("images/.trash/x.png", "images/kazoo/._c.png", "elsewhere/kazoo/x.png"):
        image(root / name, 7)
    clips, skipped = scan_folder(root)
    assert len(clips) == 7 and skipped == []


def test_folders_without_usable_media(root, tmp_path):
    with pytest.raises(AnymodalError, match="at least 1, not 0"):
        scan_folder(root, 0)
    with pytest.raises(AnymodalError, match="no folder at"):
        scan_folder(tmp_path / "absent")
    empty = tmp_path / "empty"
    (empty / "images/guitar").mkdir(parents=True)
    with pytest.raises(AnymodalError, match=r"images/<class>/\*.jpg.*audio/<class>/\*.wav"):
        scan_folder(empty)
    (empty / "images/guitar/x.txt").write_text("x")
    with pytest.raises(AnymodalError, match=r"images/guitar/x.txt"):
        scan_folder(empty)
    (empty / "images/guitar/x.png").write_bytes(b"x")
    with pytest.raises(AnymodalError, match=r"none of the 1 .* images/guitar/x.png"):
        scan_folder(empty)


@pytest.mark.parametrize(
    ("duration", "windows", "expected"),
    [
        (0.2, 3, (0.0,)),
        (1.0, 3, (0.0,)),
        (1.999, 3, (0.0,)),
        (2.0, 3, (0.0, 1.0)),
        (2.5, 3, (0.0, 1.5)),
        (3.0, 3, (0.0, 1.0, 2.0)),
        (10.0, 3, (0.0, 4.5, 9.0)),
        (10.0, 1, (4.5,)),
        (1.5, 1, (0.0,)),
    ],
)
def test_window_starts_by_hand(duration, windows, expected):
    assert window_starts(duration, windows) == expected


@settings(max_examples=200, deadline=None)
@given(duration=st.floats(0.001, 4000, allow_nan=False), windows=st.integers(1, 40))
def test_windows_fit_and_never_overlap(duration, windows):
    starts = window_starts(duration, windows)
    assert len(starts) == min(windows, max(1, int(duration)))
    assert starts[0] >= 0 and starts[-1] <= max(0, duration - 1) + 1e-9
    assert all(later - start >= 1 - 1e-9 for start, later in pairwise(starts))


@pytest.mark.slow
def test_the_instruments_beside_the_checkout(tmp_path):
    (instruments,) = shared("data/instruments")
    for kind, name in (("audio", "accordion"), ("images", "trumpet"), ("audio", "trumpet")):
        link = tmp_path / kind / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((instruments / kind / name).resolve(), target_is_directory=True)
    clips, skipped = scan_folder(tmp_path, 3)
    assert skipped == []
    recordings = clips[clips["audio"].notna()]
    accordion = recordings[recordings["instrument"] == "accordion"]
    # twelve channels of six takes, and two single notes
    assert accordion["audio"].nunique() == 14 and accordion["group"].nunique() == 8
    trumpet = recordings[recordings["audio"].str.contains("zoltantrumpet")]
    assert trumpet["audio"].nunique() == 34 and trumpet["group"].nunique() == 7
    images = clips[clips["image"].notna()]
    assert len(images) == 142 and 130 <= images["group"].nunique() < 142
    assert set(images["source"]) == {"kaggle30"}
