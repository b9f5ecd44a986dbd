"""Packs built from media: what they hold, the same bytes, resumed, refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.data.folder import scan_folder
from anymodal.data.pack import read_pack
from anymodal.embeddings.packing import build_pack, to_float16
from anymodal.embeddings.unpacking import materialise, packed
from helpers.packs import RATE, Toy, toys


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_pack_holds_the_embeddings_of_the_folder(pack_media, built):
    clips, skipped = scan_folder(pack_media, 2)
    pack = read_pack(built)
    assert pack.clips["clip_id"].tolist() == clips["clip_id"].tolist()
    assert [skip.path for skip in pack.info.skipped] == [skip.path for skip in skipped]
    assert str(pack_media) not in (built / "pack.json").read_text()
    for encoder in toys():
        embeddings = packed(pack, encoder.name)
        assert embeddings.matrix.dtype == np.float16
        present = clips[clips[encoder.modality].notna()]
        for row in present.sample(3, random_state=0).itertuples():
            if encoder.modality == "audio":
                audio, _ = soundfile.read(pack_media / row.audio, dtype="float32")
                item = audio[int(row.start_s * RATE) :][:RATE]
            else:
                item = np.asarray(Image.open(pack_media / row.image))
            expected = encoder.embed([item])
            np.testing.assert_allclose(embeddings.rows_of([row.clip_id]), expected, rtol=1e-3)


def test_the_same_media_give_the_same_bytes(pack_media, built, tmp_path):
    """Wherever the media are, however many threads read them, even over an older pack."""
    copy = tmp_path / "elsewhere" / pack_media.name
    shutil.copytree(pack_media, copy)
    out = tmp_path / "data"
    steps: list[tuple[str, int, int]] = []
    build_pack(copy, out, [Toy("audio")], 1, "old")
    build_pack(
        copy, out, toys(), 2, "toy pack", lambda *step: steps.append(step), workers=3,
        description="Noise, twice.",
    )  # fmt: skip
    assert contents(out) == contents(built)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert [step for step, done, total in steps if done == total] == [
        "read media", "embed toy_audio", "embed toy_other", "embed toy_image",
    ]  # fmt: skip


def test_a_build_that_died_resumes(pack_media, built, tmp_path):
    class Dies(Toy):
        def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
            raise RuntimeError("power cut")

    out = tmp_path / "data"
    first, _, last = toys()
    with pytest.raises(RuntimeError, match="power cut"):
        build_pack(pack_media, out, [first, Dies("audio", "toy_other"), last], 2, "toy pack")
    assert not out.exists()
    again = toys()
    build_pack(pack_media, out, again, 2, "toy pack", description="Noise, twice.")
    assert [encoder.seen for encoder in again] == [0, 16, 6]
    assert not (tmp_path / ".anymodal").exists()
    assert contents(out) == contents(built)


def test_a_build_killed_between_its_last_moves_gives_the_old_pack_back(pack_media, built, tmp_path):
    shutil.copytree(built, tmp_path / ".anymodal" / "pack-data" / "old")
    broken = Toy("audio", "broken")
    broken.dim = 1
    with pytest.raises(AnymodalError, match="its `dim` or its `embed` is wrong"):
        build_pack(pack_media, tmp_path / "data", [broken], 2, "new")
    assert read_pack(tmp_path / "data").info.name == "toy pack"


def test_build_refuses_what_it_cannot_do(pack_media, tmp_path):
    full, file, out = tmp_path / "full", tmp_path / "file", tmp_path / "data"
    full.mkdir()
    (full / "thesis.doc").write_text("years of work")
    file.write_text("in the way")
    for folder in (full, file):
        with pytest.raises(AnymodalError, match="in the way and is no feature pack"):
            build_pack(pack_media, folder, toys(), 2, "toy")
    assert (full / "thesis.doc").exists()
    mute = tmp_path / "mute"
    shutil.copytree(pack_media / "images", mute / "images")
    for root, encoders, message in (
        (pack_media, [], "at least one encoder"),
        (pack_media, [Toy("audio"), Toy("audio")], "toy_audio is named twice"),
        (pack_media, ["unheard of"], "no encoder 'unheard of'"),
        (mute, toys(), "has no audio for toy_audio"),
    ):
        with pytest.raises(AnymodalError, match=message):
            build_pack(root, out, encoders, 2, "toy")


def test_clips_that_no_encoder_could_embed_are_skipped(pack_media, tmp_path):
    """One that only some could embed stays, and is failed for the others."""
    clips, _ = scan_folder(pack_media, 1)
    recordings = clips[clips["audio"].notna()]
    peaks = {}
    for row in recordings.head(2).itertuples():
        audio, _ = soundfile.read(pack_media / row.audio, dtype="float32")
        peaks[row.audio] = audio[int(row.start_s * RATE) :][:RATE].max()
    both, one = peaks

    class Deaf(Toy):
        def __init__(self, name: str, *deaf_to: str) -> None:
            super().__init__("audio", name)
            self.peaks = [float(peaks[path]) for path in deaf_to]

        def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
            matrix = super().embed(batch)
            for row, item in zip(matrix, batch, strict=True):
                if any(np.isclose(item.max(), peak, rtol=1e-6) for peak in self.peaks):
                    row[0] = np.inf
            return matrix

    encoders = [Deaf("deaf", both, one), Deaf("less_deaf", both)]
    info = build_pack(pack_media, tmp_path / "data", encoders, 1, "toy")
    pack = read_pack(tmp_path / "data")
    assert both not in set(pack.clips["audio"]) and one in set(pack.clips["audio"])
    assert pack.clips["image"].isna().all(), "no image encoder was asked for"
    assert [info.encoders[name].failed for name in ("deaf", "less_deaf")] == [1, 0]
    reasons = {skip.path: skip.reason for skip in info.skipped}
    assert "not finite" in reasons[both]
    failed = pack.clips.loc[pack.clips["audio"] == one, "clip_id"]
    report = materialise(pack, "deaf", pack.clips["clip_id"], tmp_path / "cache")
    assert report.failed == 1 and report.failures["clip_id"].tolist() == failed.tolist()


def test_float16_rounding_is_measured_and_overflow_refused():
    matrix = np.array([[3.0, 4.0], [0.0, 0.0], [1.0 + 2**-11, 0.0]], dtype=np.float32)
    half, error = to_float16(matrix, "toy")
    assert half.dtype == np.float16
    assert error == pytest.approx(2**-11 / (1 + 2**-11))
    assert to_float16(matrix[:2], "toy")[1] == to_float16(matrix[:0], "toy")[1] == 0.0
    with pytest.raises(AnymodalError, match=r"toy gives values up to 7e\+04"):
        to_float16(np.array([[1.0, -70_000.0]], dtype=np.float32), "toy")
