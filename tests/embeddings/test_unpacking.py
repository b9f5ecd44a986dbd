"""A pack's embeddings in the cache: what extraction would have left there."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.data.pack import read_pack
from anymodal.embeddings import EmbeddingCache, extract
from anymodal.embeddings.unpacking import materialise, packed
from anymodal.encoders import registry
from helpers.packs import Toy, build, toys
from helpers.paths import SHARED


@pytest.fixture(scope="module")
def pack(built):
    return read_pack(built)


def test_materialised_is_what_extraction_leaves(pack_media, pack, tmp_path):
    shuffled = pack.clips.sample(frac=1, random_state=1).iloc[:15]
    for encoder in toys():
        taken, made = tmp_path / "taken", tmp_path / "made"
        report = materialise(pack, encoder.name, shuffled["clip_id"], taken)
        fresh = extract(shuffled, pack_media, encoder, made)
        assert (report.embedded, report.reused) == (0, fresh.embedded)
        assert report.failed == fresh.failed == 0 and report.failures.equals(fresh.failures)
        for suffix in (".json", ".parquet"):
            name = f"{encoder.name}{suffix}"
            assert (taken / name).read_bytes() == (made / name).read_bytes()
        ours, theirs = (EmbeddingCache(each).open(encoder.name, "v1") for each in (taken, made))
        assert ours.matrix.dtype == np.float32
        np.testing.assert_allclose(ours.matrix, theirs.matrix, rtol=1e-3)
        # and extraction continues from them as from its own
        rest = Toy(encoder.modality, encoder.name)
        assert extract(pack.clips, pack_media, rest, taken).reused == fresh.embedded
        assert rest.seen == pack.info.encoders[encoder.name].rows - fresh.embedded
    assert not list(taken.glob("*.parts"))


def test_materialise_replaces_what_was_there(pack, tmp_path):
    ids = pack.clips.loc[pack.clips["audio"].notna(), "clip_id"].tolist()
    materialise(pack, "toy_audio", ids, tmp_path)
    materialise(pack, "toy_audio", ids[3:5], tmp_path)
    embeddings = EmbeddingCache(tmp_path).open("toy_audio")
    assert embeddings.clip_ids.tolist() == ids[3:5]
    np.testing.assert_array_equal(embeddings.matrix, packed(pack, "toy_audio").rows_of(ids[3:5]))


def test_materialise_refuses_what_the_pack_lacks(pack, tmp_path):
    ids = pack.clips["clip_id"].tolist()
    images = pack.clips.loc[pack.clips["image"].notna(), "clip_id"]
    for encoder, clips, message in (
        ("openl3", ids, r"holds no openl3.*toy_audio, toy_other.*raw media"),
        ("toy_audio", [*ids, "nobody"], r"'nobody' \(1 such clips in all\) is not in pack"),
        ("toy_audio", images, "none of the"),
        ("toy_audio", [], "none of the"),
    ):
        with pytest.raises(AnymodalError, match=message):
            materialise(pack, encoder, clips, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_embeddings_of_other_clips_or_versions_are_refused(pack_media, tmp_path):
    """The hashes fit, the tables do not."""
    build(pack_media, tmp_path / "data")
    file, table = tmp_path / "data/pack.json", tmp_path / "data/clips.parquet"
    info = json.loads(file.read_text())
    info["encoders"]["toy_other"]["version"] = "v9"
    pd.read_parquet(table).iloc[5:].to_parquet(table, index=False)
    info["files"]["clips.parquet"] = hashlib.sha256(table.read_bytes()).hexdigest()
    file.write_text(json.dumps(info))
    pack = read_pack(tmp_path / "data")
    with pytest.raises(AnymodalError, match="toy_audio embeddings do not belong to its clips"):
        packed(pack, "toy_audio")
    with pytest.raises(AnymodalError, match="version v1 of the encoder, not by v9"):
        packed(pack, "toy_other")


@pytest.mark.slow
def test_bundled_pack_is_what_the_raw_media_give(pack_folder, tmp_path):
    """A few clips of every encoder, embedded again from the raw files."""
    raw = SHARED / "data/instruments"
    if not raw.is_dir():
        pytest.skip("no raw media in ../shared/data/instruments")
    pack = read_pack(pack_folder)
    for name in set(pack.info.encoders) & set(registry.names()):
        encoder = registry.get(name, device="cpu")
        embeddings = packed(pack, name)
        assert embeddings.version == encoder.version
        clips = pack.clips[pack.clips[encoder.modality].notna()]
        few = clips.sample(6, random_state=0)
        extract(few, raw, encoder, tmp_path)
        fresh = EmbeddingCache(tmp_path).open(name).rows_of(few["clip_id"])
        ours = embeddings.rows_of(few["clip_id"])
        norms = np.linalg.norm(fresh, axis=1) * np.linalg.norm(ours, axis=1)
        assert ((fresh * ours).sum(1) / norms).min() > 0.999
        np.testing.assert_allclose(ours, fresh, rtol=2e-3, atol=2e-3 * np.abs(fresh).max())
