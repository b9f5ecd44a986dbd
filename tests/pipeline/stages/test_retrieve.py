"""Stage `retrieve`: the baseline of two encoders that share a space without translation."""

import numpy as np
import pandas as pd
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.data.clips import read_clips
from anymodal.embeddings.cache import EmbeddingNote
from anymodal.embeddings.cache_writer import locked, write_embeddings
from anymodal.evaluation.retrieval import RetrievalResult

PAIR = "musicnn_mtt+efficientnet_lite0"
ENCODERS = ("openl3_audio_512", "openl3_image_512")


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project whose parameters name a pair without translation."""
    return finished.duplicate(tmp_path / "project", retrieve__untranslated=list(ENCODERS))


def write_cache(project, encoder, modality, dim):
    """Embeddings that are the class alone: a space in which retrieval is perfect."""
    clips = read_clips(project.workspace.clips)
    clips = clips[clips[modality].notna()]
    codes, _ = pd.factorize(clips["instrument"].fillna(""), sort=True)
    matrix = np.eye(codes.max() + 1, dim, dtype=np.float32)[codes]
    index = pd.DataFrame(
        {"clip_id": clips["clip_id"].to_list(), "row": np.arange(len(clips)), "error": None}
    )
    note = EmbeddingNote(encoder, modality, "0" * 16, dim, len(clips), 0)
    with locked(project.workspace.embeddings, encoder):
        write_embeddings(project.workspace.embeddings, note, index, [matrix])


def test_retrieval_without_translation_is_a_baseline(project, capsys):
    write_cache(project, ENCODERS[0], "audio", 512)
    write_cache(project, ENCODERS[1], "image", 512)
    project.invoke("retrieve")
    assert "untranslated" in capsys.readouterr().out
    result = RetrievalResult.read(project.workspace.retrieval(PAIR), "retrieve")
    baseline = result.untranslated
    assert (baseline.audio, baseline.image) == ENCODERS
    # the order of relatives among the wrong ones is arbitrary, which leaves it short of 1
    for direction in ("audio_to_image", "image_to_audio"):
        assert getattr(result.random, direction) + 0.02 < getattr(baseline, direction) <= 1.0
    project.invoke("select")
    project.invoke("report")
    page = project.workspace.report.read_text()
    shown = [f"{score:.3f}" for score in (baseline.audio_to_image, baseline.image_to_audio)]
    assert all(text in page for text in (*ENCODERS, *shown))


def test_two_encoders_of_different_lengths_share_no_space(project):
    write_cache(project, ENCODERS[0], "audio", 512)
    write_cache(project, ENCODERS[1], "image", 300)
    with pytest.raises(AnymodalError, match="share no space; name two encoders that were trained"):
        project.invoke("retrieve")
