"""Stage `embed` on media: the cost of a type shorter than float32 is measured."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image
from typer.testing import CliRunner

from anymodal.cli.main import app
from anymodal.config.params import Params
from anymodal.core.errors import AnymodalError
from anymodal.core.workspace import Workspace
from anymodal.embeddings.cache import EmbeddingCache
from anymodal.encoders import registry
from anymodal.pipeline.context import Context
from anymodal.pipeline.stages.embed import embed

AUDIO, IMAGE = "musicnn_mtt", "efficientnet_lite0"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of 2 classes × 7 audio files and images, with its clips drawn."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    rng = np.random.default_rng(0)
    for place, name in enumerate(("banjo", "flute")):
        for number in range(7):
            audio = rng.normal(0, 0.1, 16_000) + np.sin(np.arange(16_000) * (place + number))
            path = tmp_path / "media" / "audio" / name / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.4 * audio, 16_000)
            blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            path = tmp_path / "media" / "images" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(blocks).resize((300, 300), Image.Resampling.NEAREST).save(path)
    settings(tmp_path)
    assert CliRunner().invoke(app, ["dataset"]).exit_code == 0
    return tmp_path


def settings(folder, **embedding):
    source = {"source": "folder", "path": "media", "min_groups": 6, "windows": 1}
    encoding = {"audio": [AUDIO], "image": [IMAGE], "device": "cpu", **embedding}
    text = {"dataset": source, "embed": encoding, "check": {"min_per_class": 1}}
    (folder / "params.yaml").write_text(yaml.safe_dump(text))


@pytest.mark.slow
def test_the_error_of_bfloat16_is_printed_and_logged(project):
    import mlflow

    answer = CliRunner().invoke(app, ["embed"])
    assert answer.exit_code == 0 and "error against float32" not in answer.output
    cache = EmbeddingCache(project / "artifacts/embeddings")
    full = {name: cache.open(name).matrix[:].copy() for name in (AUDIO, IMAGE)}
    settings(project, precision="bfloat16")
    answer = CliRunner().invoke(app, ["embed"])
    assert answer.exit_code == 0 and "error against float32" in answer.output
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    runs = mlflow.search_runs(search_all_experiments=True, order_by=["start_time DESC"])
    for name in (AUDIO, IMAGE):
        short = cache.open(name)
        assert short.version == registry.get(name, "cpu", precision="bfloat16").version
        assert len(short.matrix) == len(full[name]) == 14
        errors = np.linalg.norm(short.matrix - full[name], axis=1)
        errors /= np.linalg.norm(full[name], axis=1)
        error = runs[f"metrics.precision_error/{name}"].iloc[0]
        assert error == pytest.approx(errors.max(), rel=0.2) and 0 < error < 0.05
        assert f"{error:.2%}" in answer.output


def test_embeddings_of_a_pack_have_no_other_precision(tmp_path):
    params = Params.model_validate({"embed": {"precision": "float16"}})
    with pytest.raises(AnymodalError, match=r"embed\.precision is float16, but a pack's") as caught:
        embed(Context(Workspace(tmp_path), params))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_classifier_remembers_the_precision_of_its_encoders(tmp_path):
    from sklearn.ensemble import RandomForestClassifier

    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.projection.artifact import EncoderRef, Origin
    from anymodal.projection.pca import fit_pca

    networks = {
        "audio": registry.get(AUDIO, "cpu", precision="bfloat16"),
        "image": registry.get(IMAGE, "cpu"),
    }
    rng = np.random.default_rng(0)
    rows = {m: rng.standard_normal((20, n.dim)).astype(np.float32) for m, n in networks.items()}
    references = [EncoderRef.of(network) for network in networks.values()]
    projection = fit_pca(rows["audio"], rows["image"], 8, Origin(*references, "class", 0))
    forest = RandomForestClassifier(5, random_state=0)
    forest.fit(projection.project("audio", rows["audio"]), np.arange(20) % 2)
    model = ModalityAgnosticClassifier(projection, forest, networks)
    model.save(tmp_path / "model")
    again = ModalityAgnosticClassifier.load(tmp_path / "model", device="cpu")
    assert [again.networks[m].precision for m in ("audio", "image")] == ["bfloat16", "float32"]
    assert again.networks["audio"].version == networks["audio"].version
