"""Extraction: what lands in the cache, what is reused, what fails, and in which batches."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.embeddings import LocalEngine, extract
from anymodal.embeddings.cache import EmbeddingCache
from anymodal.embeddings.engines import ChunkResult, Engine, Item, embed_batch
from anymodal.encoders.base import Encoder
from helpers.paths import TESTS
from helpers.videos import class_video

RATE = 8000


class Loudness:
    """Mean, standard deviation and peak of a sound or picture; counts what it is asked."""

    dim = 3
    sample_rate: int | None
    image_size: int | None

    def __init__(self, modality: Modality = "audio", version: str = "v1") -> None:
        self.name = f"loudness_{modality}"
        self.modality: Modality = modality
        self.sample_rate = RATE if modality == "audio" else None
        self.image_size = None if modality == "audio" else 16
        self.version = version
        self.batches: list[int] = []

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self.batches.append(len(batch))
        facts = [(item.mean(), item.std(), item.max()) for item in batch]
        return np.array(facts, dtype=np.float32)


class BatchTeller(Loudness):
    """Its embedding tells the batch it was made in, to see that the same batches are formed."""

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        matrix = super().embed(batch)
        matrix[:, 2] = len(batch) * 1000 + np.arange(len(batch))
        return matrix


def tone(path, pitch, seconds=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(RATE * seconds)) / RATE
    soundfile.write(path, 0.1 + 0.4 * np.sin(2 * np.pi * pitch * time) * (time + 0.1), RATE)


def table(**columns: Sequence[object]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    blank: dict[str, Sequence[object]] = {
        "clip_id": [f"c{i:03d}" for i in range(count)],
        "audio": [None] * count,
        "image": [None] * count,
        "start_s": [0.0] * count,
    }
    return pd.DataFrame(blank | columns)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twelve tones, a picture, a broken file of each kind."""
    root = tmp_path_factory.mktemp("media")
    for i in range(12):
        tone(root / f"{i}.wav", 100 + 50 * i)
    Image.fromarray(np.full((20, 30, 3), (10, 20, 90), dtype=np.uint8)).save(root / "blue.png")
    Image.fromarray(np.full((40, 10, 3), 200, dtype=np.uint8)).save(root / "grey.jpg")
    (root / "broken.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEnothing here")
    (root / "broken.png").write_bytes((root / "blue.png").read_bytes()[:40])
    return root


@pytest.fixture(scope="module")
def tones():
    return table(audio=[f"{i}.wav" for i in range(12)])


def fingerprint(folder):
    """Hash of every file below `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_embeds_every_clip_in_table_order(root, tones, tmp_path):
    seen: list[tuple[int, int]] = []
    report = extract(
        tones, root, Loudness(), tmp_path, batch_size=2, workers=3, chunk=5,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert (report.embedded, report.reused, report.failed) == (12, 0, 0)
    assert report.failures.empty and report.seconds > 0
    assert seen == [(0, 12), (5, 12), (10, 12), (12, 12)]
    embeddings = EmbeddingCache(tmp_path).open("loudness_audio", version="v1")
    assert embeddings.clip_ids.tolist() == tones["clip_id"].tolist()
    expected = []
    for name in tones["audio"]:
        sound, _ = soundfile.read(root / name, dtype="float32")
        expected.append((sound.mean(), sound.std(), sound.max()))
    np.testing.assert_allclose(embeddings.matrix, expected, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "loudness_audio.json", "loudness_audio.npy", "loudness_audio.parquet",
    ]  # fmt: skip
    assert json.loads((tmp_path / "loudness_audio.json").read_text()) == {
        "encoder": "loudness_audio", "modality": "audio", "version": "v1", "dim": 3, "rows": 12,
        "failed": 0, "dtype": "float32",
    }  # fmt: skip


def test_window_starts_where_the_table_says(tmp_path):
    sound = np.concatenate([np.full(RATE, 0.1), np.full(RATE, 0.5), np.full(RATE // 2, 0.8)])
    soundfile.write(tmp_path / "steps.wav", sound, RATE)
    clips = table(audio=["steps.wav"] * 3, start_s=[0.0, 1.0, 1.5])
    extract(clips, tmp_path, Loudness(), tmp_path / "cache")
    means = EmbeddingCache(tmp_path / "cache").open("loudness_audio").matrix[:, 0]
    np.testing.assert_allclose(means, [0.1, 0.5, 0.65], atol=1e-3)


def test_each_modality_takes_its_own_rows(root, tmp_path):
    clips = table(
        audio=["0.wav", None, "1.wav", None], image=[None, "blue.png", "grey.jpg", "blue.png"]
    )
    for modality, expected in (("audio", ["c000", "c002"]), ("image", ["c001", "c002", "c003"])):
        encoder = Loudness(modality)
        extract(clips, root, encoder, tmp_path)
        embeddings = EmbeddingCache(tmp_path).open(encoder.name)
        assert embeddings.clip_ids.tolist() == expected
    assert embeddings.rows_of(["c001"])[0].tolist() == [
        40.0,
        pytest.approx(35.5903, rel=1e-5),
        90.0,
    ]
    assert EmbeddingCache(tmp_path).encoders == ("loudness_audio", "loudness_image")


def test_frame_and_audio_of_a_video(tmp_path):
    class_video(tmp_path / "video.mp4", "flute", 3)
    names = ["video.mp4"] * 2
    clips = table(audio=names, image=names, start_s=[0.0, 2.0])
    for modality in MODALITIES:
        encoder = Loudness(modality)
        extract(clips, tmp_path, encoder, tmp_path / "cache")
        first, second = EmbeddingCache(tmp_path / "cache").open(encoder.name).matrix
        assert np.isfinite(first).all() and first[1] > 0
        assert not np.array_equal(first, second)


def test_broken_media_are_recorded_and_skipped(root, tmp_path):
    clips = table(audio=["0.wav", "broken.wav", "gone.wav", "blue.png", "1.wav"])
    report = extract(clips, root, Loudness(), tmp_path, batch_size=2)
    assert (report.embedded, report.reused, report.failed) == (2, 0, 3)
    assert report.failures["clip_id"].tolist() == ["c001", "c002", "c003"]
    assert all(report.failures["error"].str.len() > 5)
    assert not report.failures["error"].str.contains(str(root), regex=False).any()
    embeddings = EmbeddingCache(tmp_path).open("loudness_audio")
    pd.testing.assert_frame_equal(embeddings.failures, report.failures)
    assert embeddings.has(["c000", "c001", "c004", "other"]).tolist() == [True, False, True, False]
    assert embeddings.rows_of(["c004", "c000"]).shape == (2, 3)
    with pytest.raises(AnymodalError, match=r"'c002'.*failed.*2 such clips"):
        embeddings.rows_of(["c004", "c002", "c001"])
    broken_pictures = table(image=["broken.png", "grey.jpg"])
    assert extract(broken_pictures, root, Loudness("image"), tmp_path).failed == 1


def test_failures_are_retried_only_when_asked(root, tmp_path):
    media = tmp_path / "media"
    tone(media / "0.wav", 200)
    clips = table(audio=["0.wav", "1.wav", "2.wav"])
    cache = tmp_path / "cache"
    assert extract(clips, media, Loudness(), cache).failed == 2
    tone(media / "1.wav", 300)
    before = fingerprint(cache)
    idle = Loudness()
    report = extract(clips, media, idle, cache)
    assert (report.embedded, report.reused, report.failed) == (0, 1, 2)
    assert idle.batches == [] and fingerprint(cache) == before
    report = extract(clips, media, Loudness(), cache, retry_failed=True)
    assert (report.embedded, report.reused, report.failed) == (1, 1, 1)
    assert EmbeddingCache(cache).open("loudness_audio").has(clips["clip_id"]).tolist() == [
        True, True, False,
    ]  # fmt: skip


def test_nothing_but_failures_is_an_error_and_keeps_what_there_was(root, tones, tmp_path):
    with pytest.raises(AnymodalError, match="none of the 2 audio clips"):
        extract(table(audio=["broken.wav", "gone.wav"]), root, Loudness(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    extract(tones, root, Loudness(), tmp_path)
    before = fingerprint(tmp_path)
    with pytest.raises(AnymodalError, match="none of the 1 audio"):
        extract(table(clip_id=["new"], audio=["gone.wav"]), root, Loudness(), tmp_path)
    assert fingerprint(tmp_path) == before


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (table(image=["blue.png"]), "none of the 1 clips has audio"),
        (table(audio=[]), "none of the 0 clips has audio"),
        (table(audio=["0.wav", "1.wav"], clip_id=["same", "same"]), "repeats the clip_id 'same'"),
        (pd.DataFrame({"clip_id": ["a"]}), "lacks the column.*audio, start_s"),
    ],
)
def test_refuses_tables_it_cannot_use(root, tmp_path, clips, message):
    with pytest.raises(AnymodalError, match=message):
        extract(clips, root, Loudness(), tmp_path)


def test_refuses_a_missing_root_and_odd_sizes(root, tones, tmp_path):
    with pytest.raises(AnymodalError, match="no media folder at"):
        extract(tones, root / "nowhere", Loudness(), tmp_path)
    for name in ("batch_size", "workers", "chunk"):
        with pytest.raises(AnymodalError, match=f"{name} must be at least 1"):
            extract(tones, root, Loudness(), tmp_path, **{name: 0})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AnymodalError, match="cannot write"):
        extract(tones, root, Loudness(), tmp_path / "file")


def test_rerun_embeds_the_new_and_drops_the_gone(root, tones, tmp_path):
    extract(tones.iloc[:6], root, Loudness(), tmp_path)
    encoder = Loudness()
    mixed = tones.iloc[[8, 3, 1, 9, 0]]
    report = extract(mixed, root, encoder, tmp_path)
    assert (report.embedded, report.reused, report.failed) == (2, 3, 0)
    assert sum(encoder.batches) == 2
    embeddings = EmbeddingCache(tmp_path).open(encoder.name)
    assert embeddings.clip_ids.tolist() == mixed["clip_id"].tolist()
    fresh = tmp_path / "fresh"
    extract(mixed, root, Loudness(), fresh)
    np.testing.assert_array_equal(
        embeddings.matrix, EmbeddingCache(fresh).open(encoder.name).matrix
    )


def test_another_version_is_embedded_again(root, tones, tmp_path):
    extract(tones, root, Loudness(version="v1"), tmp_path)
    report = extract(tones, root, Loudness(version="v2"), tmp_path)
    assert (report.embedded, report.reused) == (12, 0)
    assert EmbeddingCache(tmp_path).open("loudness_audio").version == "v2"


class Refusing(Loudness):
    """Cannot take pictures less than 25 pixels high, and says so for a batch as a whole."""

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        if any(item.shape[0] < 25 for item in batch):
            raise ValueError("picture is too\nsmall")
        return super().embed(batch)


def test_one_refused_item_does_not_take_its_batch_along(root, tmp_path):
    clips = table(image=["grey.jpg", "blue.png", "broken.png", "grey.jpg"])
    report = extract(clips, root, Refusing("image"), tmp_path)
    assert (report.embedded, report.failed) == (2, 2)
    assert report.failures["error"].iloc[0] == "picture is too small"
    assert EmbeddingCache(tmp_path).open("loudness_image").clip_ids.tolist() == ["c000", "c003"]


def test_embeddings_that_are_not_finite_are_failures():
    class Odd(Loudness):
        def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
            return np.array([[1, 2, np.nan if len(item) == 2 else 3] for item in batch])

    matrix, errors = embed_batch(Odd(), [np.zeros(1), np.zeros(2), "unreadable"])
    np.testing.assert_array_equal(matrix, [[1, 2, 3]])
    assert errors == [None, "its embedding is not finite", "unreadable"]
    matrix, errors = embed_batch(Odd(), [])
    assert matrix.shape == (0, 3) and matrix.dtype == np.float32 and errors == []


def test_an_encoder_that_breaks_its_contract_is_named(root, tones, tmp_path):
    class Narrow(Loudness):
        dim = 7

    with pytest.raises(AnymodalError, match=r"encoder loudness_audio gave an array \(12, 3\)"):
        extract(tones, root, Narrow(), tmp_path)


class Breaks(BatchTeller):
    """Loses its power after so many batches."""

    def __init__(self, batches_to_live: int) -> None:
        super().__init__()
        self.batches_to_live = batches_to_live

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        if len(self.batches) == self.batches_to_live:
            raise RuntimeError("power cut")
        return super().embed(batch)


@pytest.mark.parametrize("lives", [0, 2, 5])
def test_resumes_with_the_same_batches(root, tones, tmp_path, lives):
    """12 clips in chunks of 5 and batches of 2 are batches of 2 2 1, 2 2 1, 2."""
    sizes = {"batch_size": 2, "chunk": 5}
    whole = BatchTeller()
    extract(tones, root, whole, tmp_path / "whole", **sizes)
    assert whole.batches == [2, 2, 1, 2, 2, 1, 2]
    folder = tmp_path / "cut"
    with pytest.raises(RuntimeError, match="power cut"):
        extract(tones, root, Breaks(lives), folder, **sizes)
    with pytest.raises(AnymodalError, match="run `anymodal embed` first"):
        EmbeddingCache(folder).open("loudness_audio")
    rest = BatchTeller()
    report = extract(tones, root, rest, folder, **sizes)
    saved = lives // 3 * 5
    assert (report.embedded, report.reused) == (12 - saved, saved)
    assert sum(rest.batches) == 12 - saved
    assert fingerprint(folder) == fingerprint(tmp_path / "whole")


def test_parts_of_another_version_or_damaged_are_not_used(root, tones, tmp_path):
    for damage in (False, True):
        folder = tmp_path / str(damage)
        broken = Breaks(4)
        with pytest.raises(RuntimeError):
            extract(tones, root, broken, folder, batch_size=2, chunk=2)
        parts = sorted((folder / "loudness_audio.parts").glob("*.npz"))
        assert len(parts) == 4
        if damage:
            content = bytearray(parts[1].read_bytes())
            content[-300] ^= 0xFF
            parts[1].write_bytes(content)
            parts[2].write_bytes(b"")
        encoder = BatchTeller(version="v1" if damage else "v2")
        report = extract(tones, root, encoder, folder, batch_size=2, chunk=2)
        assert report.reused == (4 if damage else 0)
        assert EmbeddingCache(folder).open(encoder.name).version == encoder.version
        assert not (folder / "loudness_audio.parts").exists()


def test_a_second_writer_is_refused(root, tones, tmp_path):
    class Meddling(Loudness):
        def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
            with pytest.raises(AnymodalError, match="another process is writing the loudness_audi"):
                extract(tones, root, Loudness(), tmp_path)
            return super().embed(batch)

    assert extract(tones, root, Meddling(), tmp_path).embedded == 12


class Wide(Loudness):
    """Embeddings of 12 kB."""

    dim = 3000

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        return np.repeat(super().embed(batch), 1000, axis=1)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_nothing_is_lost(root, tones, tmp_path):
    """A limit on the size of files stands for the full disk: the system refuses the write."""
    script = f"""
        import resource, sys
        sys.path.append({str(Path(__file__).parent)!r})
        from test_extraction import Wide, extract, table
        # a part fits, the whole matrix does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        clips = table(audio=[f"{{i}}.wav" for i in range(12)])
        extract(clips, {str(root)!r}, Wide(), {str(tmp_path)!r}, chunk=4)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    limited = subprocess.run(command, capture_output=True, text=True, cwd=TESTS)
    assert "AnymodalError: cannot write" in limited.stderr and "is kept" in limited.stderr
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["000000.npz", "000001.npz", "000002.npz", "lock"]
    assert extract(tones, root, Wide(), tmp_path, chunk=4).reused == 12


class Backwards:
    """An engine whose chunks come in the opposite order."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after

    def __call__(
        self, encoder: Encoder, items: Sequence[Item], batch_size: int, chunk: int
    ) -> Iterator[ChunkResult]:
        results = list(LocalEngine(1)(encoder, items, batch_size, chunk))[::-1]
        yield from results[: self.stop_after]
        if self.stop_after:
            raise RuntimeError("cluster is gone")


def test_any_engine_gives_the_same_files(root, tones, tmp_path):
    engines: dict[str, Engine] = {"local": LocalEngine(4), "backwards": Backwards()}
    sizes = {"batch_size": 2, "chunk": 5}
    for name, engine in engines.items():
        extract(tones, root, BatchTeller(), tmp_path / name, engine=engine, **sizes)
    broken = tmp_path / "broken"
    with pytest.raises(RuntimeError):
        extract(tones, root, BatchTeller(), broken, engine=Backwards(2), **sizes)
    assert extract(tones, root, BatchTeller(), broken, **sizes).reused == 7
    assert fingerprint(tmp_path / "local") == fingerprint(tmp_path / "backwards")
    assert fingerprint(tmp_path / "local") == fingerprint(broken)


def test_decodes_only_so_far_ahead(root):
    """The next item is taken only as results are used, however long the list."""
    taken: list[int] = []

    class Counting(Sequence[Item]):
        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, index: int) -> Item:  # type: ignore[override]
            taken.append(index)
            return Item(f"c{index}", str(root / "0.wav"), 0.0)

    results = LocalEngine(2)(Loudness(), Counting(), 4, 8)
    assert next(results).matrix.shape == (8, 3)
    assert len(taken) <= 8 + 4 + 2
    results.close()  # type: ignore[attr-defined]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.integers(0, 13), unique=True, min_size=1), min_size=1, max_size=4))
def test_the_cache_always_is_the_last_table(root, tmp_path_factory, tables):
    """Whatever tables came before, the cache holds the last one's clips in its order.

    Clips 12 and 13 cannot be decoded.
    """
    folder = tmp_path_factory.mktemp("cache")
    files = [f"{i}.wav" for i in range(12)] + ["broken.wav", "gone.wav"]
    everything = table(audio=files)
    direct = {}
    for clip_id, name in zip(everything["clip_id"], files[:12], strict=False):
        sound, _ = soundfile.read(root / name, dtype="float32")
        direct[clip_id] = Loudness().embed([sound])[0]
    for chosen in tables:
        clips = everything.iloc[chosen]
        if min(chosen) >= 12:
            with pytest.raises(AnymodalError, match="none of the"):
                extract(clips, root, Loudness(), folder, chunk=3, batch_size=2)
            continue
        report = extract(clips, root, Loudness(), folder, chunk=3, batch_size=2)
        assert report.embedded + report.reused + report.failed == len(chosen)
        embeddings = EmbeddingCache(folder).open("loudness_audio")
        good = [f"c{i:03d}" for i in chosen if i < 12]
        assert embeddings.clip_ids.tolist() == good
        np.testing.assert_allclose(embeddings.matrix, [direct[i] for i in good], rtol=1e-5)
