"""Feature packs: built from media, read back, refused when not whole, turned into a cache."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from anymodal import encoders
from anymodal.cache import EmbeddingCache
from anymodal.dataset.clips import validate
from anymodal.dataset.datasheet import datasheet, media_sources
from anymodal.dataset.folder import scan_folder
from anymodal.dataset.pack import Pack, read_pack
from anymodal.embedding import extract
from anymodal.encoders.base import Modality
from anymodal.errors import AnymodalError
from anymodal.packing import build_pack, to_float16

RATE = 8000
ROOT = Path(__file__).parents[2]


class Toy:
    """Mean, deviation and a few samples of a sound or picture."""

    dim = 5
    image_size = 16
    sample_rate = RATE

    def __init__(self, modality: Modality, name: str = "", version: str = "v1") -> None:
        self.name = name or f"toy_{modality}"
        self.modality: Modality = modality
        self.version = version
        self.seen = 0

    def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self.seen += len(batch)
        items = [np.asarray(item, dtype=np.float32) for item in batch]
        facts = [(i.mean(), i.std(), *i.ravel()[100:103]) for i in items]
        return np.array(facts, dtype=np.float32)


def toys() -> list[Any]:
    return [Toy("audio"), Toy("audio", "toy_other"), Toy("image")]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, two sources, 4 + 4 recordings of 2.5 s and 3 + 3 pictures; two useless files."""
    root = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for name in ("banjo", "violin"):
        (root / "audio" / name).mkdir(parents=True)
        (root / "images" / name).mkdir(parents=True)
        for i in range(4):
            source = "philharmonia" if i % 2 else "mystery"
            sound = rng.uniform(-0.9, 0.9, int(2.5 * RATE))
            soundfile.write(root / "audio" / name / f"{source}__{name}{i}.wav", sound, RATE)
        for i in range(3):
            picture = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(picture).save(root / "images" / name / f"kaggle30__{name}{i}.png")
    (root / "images" / "banjo" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (root / "audio" / "banjo" / "notes.txt").write_text("not a sound")
    return root


@pytest.fixture(scope="module")
def built(media: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("pack") / "data"
    return out, build_pack(media, out, toys(), 2, "toy pack", description="Noise, twice.")


@pytest.fixture
def pack(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> Pack:
    """A copy that a test may spoil."""
    shutil.copytree(built[0], tmp_path / "data")
    return read_pack(tmp_path / "data")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_round_trip(media: Path, pack: Pack) -> None:
    scanned, skipped = scan_folder(media, 2)
    assert pack.name == "toy pack"
    assert pack.encoders == ("toy_audio", "toy_other", "toy_image")
    assert pack.clips["clip_id"].tolist() == scanned["clip_id"].tolist()
    assert len(pack.clips) == 8 * 2 + 6
    assert pack.clips["subset"].isna().all() and pack.clips["split"].isna().all()
    validate(pack.clips)
    assert [each["path"] for each in pack.meta["skipped"]] == [each.path for each in skipped]
    assert len(skipped) == 2
    for encoder in toys():
        embeddings = pack.embeddings(encoder.name)
        assert embeddings.matrix.dtype == np.float16
        for row in (
            scanned[scanned[encoder.modality].notna()].sample(3, random_state=0).itertuples()
        ):
            if encoder.modality == "audio":
                sound, _ = soundfile.read(media / row.audio, dtype="float32")
                start = int(row.start_s * RATE)
                item = sound[start : start + RATE]
            else:
                item = np.asarray(Image.open(media / row.image))
            expected = encoder.embed([item])
            np.testing.assert_allclose(embeddings.rows_of([row.clip_id]), expected, rtol=1e-3)


def test_meta_says_what_is_there(built: tuple[Path, dict[str, Any]]) -> None:
    out, meta = built
    assert json.loads((out / "pack.json").read_text()) == meta
    assert meta["description"] == "Noise, twice." and meta["pairing"] == "class"
    assert meta["windows"] == 2
    assert meta["made"]["command"] == "anymodal pack MEDIA --name 'toy pack'"
    counts = meta["counts"]
    assert counts["clips"] == 22
    assert counts["audio"] == {"clips": 16, "files": 8}
    assert counts["image"] == {"clips": 6, "files": 6}
    assert counts["classes"] == {name: {"audio": 8, "image": 3} for name in ("banjo", "violin")}
    assert counts["sources"] == {
        "kaggle30": {"audio": 0, "image": 6},
        "mystery": {"audio": 8, "image": 0},
        "philharmonia": {"audio": 8, "image": 0},
    }
    facts = dict(meta["encoders"]["toy_audio"])
    assert 0 < facts.pop("float16_error") < 2**-11
    assert facts == {"modality": "audio", "dim": 5, "version": "v1", "rows": 16, "failed": 0}
    files = {name for name in contents(out) if name != "pack.json"}
    assert set(meta["files"]) == files
    for name, digest in meta["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest


def test_the_same_media_give_the_same_bytes(
    media: Path, built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Wherever the media lie, however many threads read them, even over an older pack."""
    copy = tmp_path / "elsewhere" / media.name
    shutil.copytree(media, copy)
    out = tmp_path / "data"
    steps: list[tuple[str, int, int]] = []
    build_pack(copy, out, [Toy("audio")], 1, "old")
    build_pack(
        copy, out, toys(), 2, "toy pack", lambda *step: steps.append(step), workers=3,
        description="Noise, twice.",
    )  # fmt: skip
    assert contents(out) == contents(built[0])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert [step for step, done, total in steps if done == total] == [
        "read media", "embed toy_audio", "embed toy_other", "embed toy_image",
    ]  # fmt: skip


def test_a_build_that_died_resumes(
    media: Path, built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    class Dies(Toy):
        def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
            raise RuntimeError("power cut")

    out = tmp_path / "data"
    first, _, last = toys()
    with pytest.raises(RuntimeError, match="power cut"):
        build_pack(media, out, [first, Dies("audio", "toy_other"), last], 2, "toy pack")
    assert not out.exists()
    again = toys()
    build_pack(media, out, again, 2, "toy pack", description="Noise, twice.")
    assert [encoder.seen for encoder in again] == [0, 16, 6]
    assert not (tmp_path / ".anymodal").exists()
    assert contents(out) == contents(built[0])


def test_a_build_killed_between_its_last_moves_gives_the_old_pack_back(
    media: Path, built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out, work = tmp_path / "data", tmp_path / ".anymodal" / "pack-data"
    shutil.copytree(built[0], work / "old")
    broken = Toy("audio", "broken")
    broken.dim = 1
    with pytest.raises(AnymodalError, match="its `dim` or its `embed` is wrong"):
        build_pack(media, out, [broken], 2, "new")
    assert read_pack(out).name == "toy pack"


def test_materialised_is_what_extraction_leaves(media: Path, pack: Pack, tmp_path: Path) -> None:
    shuffled = pack.clips.sample(frac=1, random_state=1).iloc[:15]
    for encoder in toys():
        taken, made = tmp_path / "taken", tmp_path / "made"
        report = pack.materialise(encoder.name, shuffled["clip_id"], taken)
        fresh = extract(shuffled, media, encoder, made)
        assert (report.embedded, report.reused) == (0, fresh.embedded)
        assert report.failed == fresh.failed == 0 and report.failures.equals(fresh.failures)
        for suffix in (".json", ".parquet"):
            name = f"{encoder.name}{suffix}"
            assert (taken / name).read_bytes() == (made / name).read_bytes()
        ours, theirs = (EmbeddingCache(each).open(encoder.name, "v1") for each in (taken, made))
        assert ours.matrix.dtype == np.float32
        np.testing.assert_allclose(ours.matrix, theirs.matrix, rtol=1e-3)
        # and the cache goes on as if it had embedded them itself
        rest = Toy(encoder.modality, encoder.name)
        assert extract(pack.clips, media, rest, taken).reused == fresh.embedded
        assert rest.seen == pack.meta["encoders"][encoder.name]["rows"] - fresh.embedded
    assert not list(taken.glob("*.parts"))


def test_materialise_replaces_what_was_there(pack: Pack, tmp_path: Path) -> None:
    ids = pack.clips.loc[pack.clips["audio"].notna(), "clip_id"].tolist()
    pack.materialise("toy_audio", ids, tmp_path)
    pack.materialise("toy_audio", ids[3:5], tmp_path)
    embeddings = EmbeddingCache(tmp_path).open("toy_audio")
    assert embeddings.clip_ids.tolist() == ids[3:5]
    np.testing.assert_array_equal(embeddings.matrix, pack.embeddings("toy_audio").rows_of(ids[3:5]))


def test_materialise_refuses_what_the_pack_lacks(pack: Pack, tmp_path: Path) -> None:
    ids = pack.clips["clip_id"].tolist()
    with pytest.raises(AnymodalError, match=r"holds no openl3.*toy_audio, toy_other.*raw media"):
        pack.materialise("openl3", ids, tmp_path / "cache")
    with pytest.raises(AnymodalError, match=r"'nobody' \(1 such clips in all\) is not in pack"):
        pack.materialise("toy_audio", [*ids, "nobody"], tmp_path / "cache")
    pictures = pack.clips.loc[pack.clips["image"].notna(), "clip_id"]
    for nothing in (pictures, []):
        with pytest.raises(AnymodalError, match="none of the"):
            pack.materialise("toy_audio", nothing, tmp_path / "cache")
    with pytest.raises(AnymodalError, match="must not repeat"):
        pack.materialise("toy_audio", [ids[0], ids[0]], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_missing_and_altered_files_are_named(pack: Pack) -> None:
    for name in pack.meta["files"]:
        path = pack.path / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(AnymodalError, match=rf"{path.name} is not the file.*dvc pull"):
            read_pack(pack.path)
        path.unlink()
        with pytest.raises(AnymodalError, match=rf"lacks {name}; fetch it again"):
            read_pack(pack.path)
        path.write_bytes(content)
    (pack.path / "pack.json").unlink()
    with pytest.raises(AnymodalError, match=r"no feature pack in .*lacks pack\.json"):
        read_pack(pack.path)


def _without_encoder(meta: dict[str, Any]) -> None:
    meta["encoders"] = {}


def _without_file(meta: dict[str, Any]) -> None:
    del meta["files"]["embeddings/toy_audio.npy"]


def _outside(meta: dict[str, Any]) -> None:
    meta["files"]["../secret"] = "0"


def _other_version(meta: dict[str, Any]) -> None:
    meta["encoders"]["toy_audio"]["version"] = "v9"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta.update(format=99), "has format 99, this version of anymodal reads 1"),
        (lambda meta: meta.pop("name"), "pack.json is damaged"),
        (lambda meta: meta.update(encoders=3), "pack.json is damaged"),
        (lambda meta: meta.update(files={}), "describes no whole pack"),
        (_without_encoder, "describes no whole pack"),
        (_without_file, "describes no whole pack"),
        (_outside, "names a file outside the pack"),
        (_other_version, "version v1 of the encoder, not by v9"),
    ],
)
def test_a_wrong_description_is_refused(
    pack: Pack, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    meta = json.loads((pack.path / "pack.json").read_text())
    change(meta)
    (pack.path / "pack.json").write_text(json.dumps(meta))
    with pytest.raises(AnymodalError, match=message):
        read_pack(pack.path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"format": 1}'])
def test_a_broken_description_is_refused(pack: Pack, content: str) -> None:
    (pack.path / "pack.json").write_text(content)
    with pytest.raises(AnymodalError, match=r"pack\.json is damaged"):
        read_pack(pack.path)


def test_embeddings_of_other_clips_are_refused(pack: Pack) -> None:
    """The hashes fit, the tables do not."""
    clips = pd.read_parquet(pack.path / "clips.parquet").iloc[5:]
    clips.to_parquet(pack.path / "clips.parquet", index=False)
    meta = json.loads((pack.path / "pack.json").read_text())
    digest = hashlib.sha256((pack.path / "clips.parquet").read_bytes()).hexdigest()
    meta["files"]["clips.parquet"] = digest
    (pack.path / "pack.json").write_text(json.dumps(meta))
    with pytest.raises(AnymodalError, match=r"toy_audio embeddings do not belong to clips"):
        read_pack(pack.path)


def test_build_refuses_what_it_cannot_do(media: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "full", tmp_path / "file"):
        if out.name == "full":
            out.mkdir()
            (out / "thesis.doc").write_text("years of work")
        else:
            out.write_text("in the way")
        with pytest.raises(AnymodalError, match="in the way and is no feature pack"):
            build_pack(media, out, toys(), 2, "toy")
    assert (tmp_path / "full" / "thesis.doc").exists()
    out = tmp_path / "data"
    with pytest.raises(AnymodalError, match="at least one encoder"):
        build_pack(media, out, [], 2, "toy")
    with pytest.raises(AnymodalError, match="toy_audio is named twice"):
        build_pack(media, out, [Toy("audio"), Toy("audio")], 2, "toy")
    with pytest.raises(AnymodalError, match="no encoder 'unheard of'"):
        build_pack(media, out, ["unheard of"], 2, "toy")
    silent = tmp_path / "silent"
    shutil.copytree(media / "images", silent / "images")
    with pytest.raises(AnymodalError, match="has no audio for toy_audio"):
        build_pack(silent, out, toys(), 2, "toy")


def test_clips_that_no_encoder_could_embed_are_left_out(media: Path, tmp_path: Path) -> None:
    """One that only some could embed stays, and is failed for the others."""
    scanned, _ = scan_folder(media, 1)
    both, one = scanned.loc[scanned["audio"].notna(), "audio"].iloc[[0, 1]]
    heard = {n: soundfile.read(media / n, dtype="float32")[0].max() for n in (both, one)}

    class Deaf(Toy):
        def __init__(self, name: str, *deaf_to: str) -> None:
            super().__init__("audio", name)
            self.peaks = [float(heard[name]) for name in deaf_to]

        def embed(self, batch: Sequence[np.ndarray]) -> np.ndarray:
            matrix = super().embed(batch)
            for row, item in zip(matrix, batch, strict=True):
                if any(np.isclose(item.max(), peak, rtol=1e-6) for peak in self.peaks):
                    row[0] = np.inf
            return matrix

    for name in heard:  # the middle second has to hold the peak that tells the files apart
        sound, _ = soundfile.read(media / name, dtype="float32")
        start = int(scanned.loc[scanned["audio"] == name, "start_s"].iloc[0] * RATE)
        heard[name] = sound[start : start + RATE].max()
    chosen: list[Any] = [Deaf("deaf", both, one), Deaf("less_deaf", both)]
    meta = build_pack(media, tmp_path / "data", chosen, 1, "toy")
    pack = read_pack(tmp_path / "data")
    assert both not in set(pack.clips["audio"]) and one in set(pack.clips["audio"])
    assert pack.clips["image"].isna().all(), "no image encoder was asked for"
    assert [meta["encoders"][name]["failed"] for name in ("deaf", "less_deaf")] == [1, 0]
    lost = {each["path"]: each["reason"] for each in meta["skipped"]}
    assert "not finite" in lost[both]
    failed = pack.clips.loc[pack.clips["audio"] == one, "clip_id"]
    report = pack.materialise("deaf", pack.clips["clip_id"], tmp_path / "cache")
    assert report.failed == 1 and report.failures["clip_id"].tolist() == failed.tolist()


def test_float16_rounding_is_measured_and_overflow_refused() -> None:
    matrix = np.array([[3.0, 4.0], [0.0, 0.0], [1.0 + 2**-11, 0.0]], dtype=np.float32)
    half, error = to_float16(matrix, "toy")
    assert half.dtype == np.float16
    assert error == pytest.approx(2**-11 / (1 + 2**-11))
    assert to_float16(matrix[:2], "toy")[1] == 0.0
    assert to_float16(matrix[:0], "toy")[1] == 0.0
    with pytest.raises(AnymodalError, match=r"toy gives values up to 7e\+04"):
        to_float16(np.array([[1.0, -70_000.0]], dtype=np.float32), "toy")


def test_datasheet_states_sources_and_limits(built: tuple[Path, dict[str, Any]]) -> None:
    out, meta = built
    text = (out / "DATASHEET.md").read_text()
    assert text == datasheet(meta, read_pack(out).clips)
    philharmonia = media_sources()["philharmonia"]
    assert f"| philharmonia | {philharmonia.origin} | {philharmonia.licence} | 8 | 0 |" in text
    assert "| mystery | not stated | not stated | 8 | 0 |" in text
    assert "| banjo | 4 | 8 | 3 |" in text
    assert "| violin | mystery | 4 | 0 |" in text
    assert "8 recordings (16 one-second windows) and 6 pictures" in text
    assert "**class-paired**" in text and "same moment" in text
    assert "AudioSet" in text and "No raw media" in text
    assert "every picture is of the source kaggle30" in text
    assert "philharmonia: single notes" in text
    assert "no licence is stated for kaggle30, mystery" in text
    assert "self-supervised" not in text.lower()


def test_known_sources_are_complete() -> None:
    sources = media_sources()
    assert len(sources) >= 20
    for source in sources.values():
        assert source.source and source.origin and source.licence
    table = ROOT.parent / "shared" / "data" / "instruments" / "index.csv"
    if not table.is_file():
        pytest.skip("no ../shared/data/instruments")
    assert set(pd.read_csv(table)["source"]) <= set(sources)


def test_bundled_pack_is_what_the_raw_media_give(pack_folder: Path, tmp_path: Path) -> None:
    """A few clips of every encoder, embedded again from the raw files."""
    raw = ROOT.parent / "shared" / "data" / "instruments"
    if not raw.is_dir():
        pytest.skip("no raw media in ../shared/data/instruments")
    pack = read_pack(pack_folder)
    for name in pack.encoders:
        encoder = encoders.get(name, device="cpu")
        held = pack.embeddings(name)
        assert held.version == encoder.version
        clips = pack.clips[pack.clips[encoder.modality].notna()]
        few = clips.sample(6, random_state=0)
        extract(few, raw, encoder, tmp_path)
        fresh = EmbeddingCache(tmp_path).open(name).rows_of(few["clip_id"])
        ours = held.rows_of(few["clip_id"])
        cosine = (
            (fresh * ours).sum(1) / np.linalg.norm(fresh, axis=1) / np.linalg.norm(ours, axis=1)
        )
        assert cosine.min() > 0.999
        np.testing.assert_allclose(ours, fresh, rtol=2e-3, atol=2e-3 * np.abs(fresh).max())
