"""Stage `dataset` on media: what it measures is what `check` compares."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from anymodal.config.params import Params
from anymodal.core.errors import AnymodalError
from anymodal.core.workspace import Workspace
from anymodal.data.checks import CheckReport
from anymodal.pipeline.context import Context
from anymodal.pipeline.stages.check import check
from anymodal.pipeline.stages.dataset import dataset


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def context(source: str) -> Context:
    settings = {"source": source, "path": "media", "min_groups": 6, "windows": 1}
    return Context(
        Workspace(), Params.model_validate({"dataset": settings, "check": {"min_per_class": 1}})
    )


@pytest.mark.slow
def test_silent_audio_and_tiny_images_of_a_folder_are_named(here):
    rng = np.random.default_rng(0)
    for place, name in enumerate(("banjo", "flute")):
        for number in range(20):
            audio = rng.normal(0, 0.1, 16_000) + np.sin(np.arange(16_000) * (place + number))
            path = here / "media" / "audio" / name / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, (1e-5 if (place, number) == (0, 7) else 0.4) * audio, 16_000)
            # coarse noise: no two images are alike
            blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            size = (100, 100) if (place, number) == (1, 3) else (300, 300)
            image = here / "media" / "images" / name / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(image)
    dataset(context("folder"))
    clips = pd.read_parquet("artifacts/clips.parquet").set_index("clip_id")
    quality = pd.read_parquet("artifacts/quality.parquet").set_index("clip_id")
    assert quality.index.tolist() == clips.index.tolist()
    assert (quality["rms_dbfs"].notna() == clips["audio"].notna()).all()
    assert (quality["contrast"].notna() == clips["image"].notna()).all()
    results = {each.name: each for each in check(context("folder")).results}
    for name, column, path in (
        ("silent", "audio", "audio/banjo/7.wav"),
        ("tiny", "image", "images/flute/3.png"),
    ):
        named = tuple(clips.index[clips[column] == path])
        assert len(named) == 1 and results[name].unexpected == named
    assert "same_second" not in results and results["measured"].success
    assert CheckReport.read(here / "artifacts/checks/checks.json", "check").ok


def test_an_unfinished_audioset_folder_is_refused(here):
    with pytest.raises(AnymodalError, match="that `anymodal audioset` wrote, or fetch it"):
        dataset(context("audioset"))
    (here / "media").mkdir()
    with pytest.raises(AnymodalError, match="is not complete: finish it with `anymodal audioset`"):
        dataset(context("audioset"))
