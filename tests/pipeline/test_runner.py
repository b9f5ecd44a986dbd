"""The whole pipeline on the bundled pack's real embeddings."""

import json
import sys
import textwrap
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.classification import ClassificationResult
from anymodal.evaluation.retrieval import RetrievalResult
from anymodal.pipeline.runner import STAGES, run_pipeline
from anymodal.tracking.promotion import ValidationScores

PAIR = "musicnn_mtt+efficientnet_lite0"


def test_labels_cross_modalities_where_translation_does_and_not_where_pca_does(finished):
    result = ClassificationResult.read(finished.workspace.classification, "classify")
    assert result.pairing == "class" and len(result.classes) == 10
    scores = {key: score.mean for key, score in result.scores.items()}
    for target in ("audio", "image"):
        assert scores["MMT", "zero-shot", target] > scores["MMP", "zero-shot", target] + 0.4
        assert scores["MMP", "zero-shot", target] < 0.25
        assert scores["MMP", "all", target] > scores["MMP", "zero-shot", target] + 0.2


def test_retrieval_beats_chance_and_pca(finished):
    result = RetrievalResult.read(finished.workspace.retrieval(PAIR), "retrieve")
    for direction in ("audio_to_image", "image_to_audio"):
        baselines = [getattr(scores, direction) for scores in (result.random, result.pca)]
        for seed in result.translation:
            assert getattr(seed, direction) > max(baselines) + 0.05


def test_one_parent_run_with_a_child_per_stage(finished):
    runs = finished.runs()
    (parent,) = (run for run in runs if "anymodal.pipeline" in run.data.tags)
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.tags["anymodal.stage"] for run in children) == sorted(STAGES)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["pairing"] for run in runs} == {"class"}
    assert "macro_f1/MMT-zero-shot-image" in parent.data.metrics


def test_models_are_registered_and_load_without_the_project(finished, tmp_path):
    uri = f"sqlite:///{finished.folder}/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    for name in ("anymodal-translation", "anymodal-classifier"):
        version = client.get_model_version_by_alias(name, "champion")
        assert version.tags["pair"] == PAIR
        assert version.tags["pairing"] == "class"
        assert version.tags["champion_decision"] == "champion: there was no champion"
        fetched = client.download_artifacts(version.run_id, f"validation/{name}.json")
        scores = ValidationScores.from_dict(json.loads(Path(fetched).read_text()))
        assert scores.context["dataset"] == version.tags.get("dataset", "instruments")
        assert 0.5 < scores.score.value <= 1 and set(scores.rows["modality"]) == {
            "audio", "image"
        }  # fmt: skip
    script = textwrap.dedent(
        f"""
        import sys
        # an editable installation would put the project on the path: take it off
        sys.path[:] = [p for p in sys.path if not p.endswith("/src")]
        sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in repr(f)]
        import io, mlflow, numpy as np, pandas as pd, soundfile
        from PIL import Image
        mlflow.set_tracking_uri("{uri}")
        model = mlflow.pyfunc.load_model("models:/anymodal-classifier@champion")
        import anymodal
        assert "artifacts" in anymodal.__file__ or "mlruns" in anymodal.__file__, anymodal.__file__
        image, audio = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (64, 48), "brown").save(image, format="PNG")
        soundfile.write(audio, np.sin(np.arange(8000) / 9), 16000, format="WAV")
        table = pd.DataFrame({{"content": [image.getvalue(), audio.getvalue()]}})
        answer = model.predict(table)
        assert list(answer["modality"]) == ["image", "audio"]
        assert np.allclose(answer.iloc[:, 3:].sum(axis=1), 1)
        assert model.metadata.signature is not None and model.input_example is not None
        translation = mlflow.pyfunc.load_model("models:/anymodal-translation@champion")
        joint = translation.predict(pd.DataFrame({{
            "modality": ["image", "audio"], "embedding": [[0.1] * 1280, [0.2] * 1506]
        }}))
        lengths = [float(np.linalg.norm(v)) for v in joint["joint"]]
        assert np.allclose(lengths, 1, atol=1e-5), lengths
        """
    )
    (tmp_path / "elsewhere.py").write_text(script)
    finished.run(sys.executable, str(tmp_path / "elsewhere.py"))


def test_a_second_repro_runs_nothing(finished):
    answer = finished.run("dvc", "repro")
    assert "Running stage" not in answer.stdout
    assert "didn't change" in answer.stdout


def test_a_changed_margin_reruns_translation_and_what_follows_only(finished):
    params = finished.folder / "params.yaml"
    before = params.read_text()
    try:
        params.write_text(before.replace("margin: 1.0", "margin: 0.5"))
        answer = finished.run("dvc", "repro", "--dry")
    finally:
        params.write_text(before)
    ran = [line.split("'")[1].split("@")[0] for line in answer.stdout.splitlines()
           if line.startswith("Running stage")]  # fmt: skip
    assert ran[0] == "translate"
    assert not {"dataset", "check", "embed"} & set(ran)


def test_clip_table_and_embeddings_belong_together(finished):
    clips = pd.read_parquet(finished.folder / "artifacts/clips.parquet")
    for encoder, modality in (("musicnn_mtt", "audio"), ("efficientnet_lite0", "image")):
        index = pd.read_parquet(finished.folder / f"artifacts/embeddings/{encoder}.parquet")
        assert set(index["clip_id"]) == set(clips.loc[clips[modality].notna(), "clip_id"])


def test_bad_calls_are_one_line(tmp_path):
    with pytest.raises(AnymodalError, match="no stage 'transalte'"):
        run_pipeline(tmp_path, "transalte")
    with pytest.raises(AnymodalError, match="sets nothing"):
        run_pipeline(tmp_path, None, ["margin"])
    with pytest.raises(AnymodalError, match=r"no dvc\.yaml"):
        run_pipeline(tmp_path)
