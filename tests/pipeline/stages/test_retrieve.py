"""The stage `retrieve`: its baseline of two encoders that share a space without translation."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from anymodal.cache import EmbeddingNote
from anymodal.cache_writer import locked, write_embeddings
from anymodal.dataset.clips import read_clips
from anymodal.storage import read_json
from project import Project

PAIR = "musicnn_mtt+efficientnet_lite0"


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project whose parameters name a pair without translation."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns(".dvc", ".git", "data"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["retrieve"]["untranslated"] = ["openl3_audio_512", "openl3_image_512"]
    params["tracking"]["register_models"] = False
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return Project(folder)


def write_cache(project: Project, encoder: str, modality: str, dim: int) -> None:
    """Embeddings that are the class alone: a space in which retrieval is perfect."""
    clips = read_clips(project.folder / "artifacts" / "clips.parquet")
    clips = clips[clips[modality].notna()]
    codes, _ = pd.factorize(clips["instrument"].fillna(""), sort=True)
    matrix = np.eye(codes.max() + 1, dim, dtype=np.float32)[codes]
    index = pd.DataFrame(
        {"clip_id": clips["clip_id"].to_list(), "row": np.arange(len(clips)), "error": None}
    )
    folder = project.folder / "artifacts" / "embeddings"
    note = EmbeddingNote(encoder, modality, "0" * 16, dim, len(clips), 0)
    with locked(folder, encoder):
        write_embeddings(folder, note, index, [matrix])


def test_retrieval_without_translation_is_a_baseline(project):
    write_cache(project, "openl3_audio_512", "audio", 512)
    write_cache(project, "openl3_image_512", "image", 512)
    told = project.run("anymodal", "retrieve").stdout
    assert "untranslated" in told
    scores = read_json(project.folder / "artifacts" / "retrieval" / f"{PAIR}.json")
    found = scores["untranslated"]
    assert (found["audio"], found["image"]) == ("openl3_audio_512", "openl3_image_512")
    # the order of relatives among the wrong ones is arbitrary, which leaves it short of 1
    for way in ("audio_to_image", "image_to_audio"):
        assert scores["random"][way] + 0.02 < found[way] <= 1.0
    project.run("anymodal", "select")
    project.run("anymodal", "report")
    page = (project.folder / "artifacts" / "report" / "index.html").read_text()
    assert "openl3_audio_512 with openl3_image_512, untranslated, scores" in page


def test_two_encoders_of_different_lengths_share_no_space(project):
    write_cache(project, "openl3_audio_512", "audio", 512)
    write_cache(project, "openl3_image_512", "image", 300)
    done = project.run("anymodal", "retrieve", check=False)
    assert done.returncode == 1
    assert "share no space; name two encoders that were trained together" in " ".join(
        done.stderr.split()
    )
