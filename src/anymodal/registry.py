"""Registered models: every trained translation and classifier becomes a version in MLflow.

A version carries its signature, an input example, its code and its encoders' weights, and the tag
`digest` of the files that it was made from, so that a stage that DVC took from its cache finds the
version it belongs to, or registers it again in a new store.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from PIL import Image

from anymodal.encoders.base import MODALITIES
from anymodal.model import ModalityAgnosticClassifier
from anymodal.params import Params
from anymodal.projection import load_projection
from anymodal.storage import read_json
from anymodal.tracking import CHAMPION, StageRun, connect
from anymodal.workspace import Workspace

TRANSLATION = "anymodal-translation"
CLASSIFIER = "anymodal-classifier"

PACKAGE = Path(__file__).parent
_REQUIREMENTS = (
    "mlflow", "torch", "numpy", "pandas", "pydantic", "pyyaml", "psutil", "pyarrow", "safetensors",
    "scikit-learn", "skops", "soundfile", "soxr", "av", "pillow", "efficientnet-lite-pytorch",
)  # fmt: skip


def register_translation(
    folder: Path, tags: Mapping[str, str], params: Params, run: StageRun | None
) -> str:
    """Register the translation in `folder` unless it is registered already; return its version.

    `tags` are put on the version: pair, pairing, dataset, seed.
    """
    mlflow = connect(params.tracking)
    projection = load_projection(folder)
    vectors = {m: np.zeros((1, projection.dims[m]), np.float32) for m in MODALITIES}
    example = pd.DataFrame(
        {"modality": MODALITIES, "embedding": [vectors[m][0].tolist() for m in MODALITIES]}
    )
    output = pd.DataFrame(
        {"joint": [projection.project(m, vectors[m])[0].tolist() for m in MODALITIES]}
    )
    return _register(
        mlflow, TRANSLATION, folder, "projection", "translation.py", example, output, tags, run
    )


def crown_translation(
    workspace: Workspace, pair: str, params: Params, run: StageRun | None
) -> None:
    """Give the alias `champion` to the best training (lowest validation loss) of `pair`."""
    trainings = read_json(workspace.training(pair))
    best = min(trainings["seeds"], key=lambda training: training["valid_loss"])
    folder = workspace.translation(pair, best["seed"])
    tags = {"pair": pair, "pairing": trainings["pairing"], "seed": str(best["seed"])}
    number = register_translation(folder, tags, params, run)
    client = connect(params.tracking).MlflowClient()
    client.set_registered_model_alias(TRANSLATION, CHAMPION, number)


def register_classifier(folder: Path, classifier: ModalityAgnosticClassifier, run: StageRun) -> str:
    """Register the saved classifier and give it the alias `champion`; return its version."""
    mlflow = connect(run.params.tracking)
    example = pd.DataFrame({"content": [_example_picture(), _example_sound()]})
    answers = classifier.predict(example["content"].to_list())
    output = pd.DataFrame([answer.as_row() for answer in answers])
    tags: dict[str, str] = {
        name: str(classifier.facts[name])
        for name in ("pair", "pairing", "dataset", "seed", "validation_macro_f1")
        if name in classifier.facts
    }
    number = _register(
        mlflow, CLASSIFIER, folder, "classifier", "classifier.py", example, output, tags, run
    )
    mlflow.MlflowClient().set_registered_model_alias(CLASSIFIER, CHAMPION, number)
    return number


def digest(folder: Path) -> str:
    """Hash of a folder's file names and contents, 16 hex digits."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _register(
    mlflow: Any,
    name: str,
    folder: Path,
    artifact: str,
    script: str,
    example: pd.DataFrame,
    output: pd.DataFrame,
    tags: Mapping[str, str],
    run: StageRun | None,
) -> str:
    client = mlflow.MlflowClient()
    mark = digest(folder)
    known = client.search_model_versions(f"name = '{name}' and tags.digest = '{mark}'")
    if known:
        return str(known[0].version)
    logged = mlflow.pyfunc.log_model(
        name=artifact,
        python_model=str(PACKAGE / "serving" / script),
        artifacts={artifact: str(folder)},
        code_paths=[str(PACKAGE)],
        signature=mlflow.models.infer_signature(example, output),
        input_example=example,
        pip_requirements=[f"{package}=={version(package)}" for package in _REQUIREMENTS],
        registered_model_name=name,
    )
    number = str(logged.registered_model_version)
    for tag, value in {**tags, "digest": mark}.items():
        client.set_model_version_tag(name, number, tag, value)
    return number


def _example_picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(buffer, format="PNG")
    return buffer.getvalue()


def _example_sound() -> bytes:
    buffer = io.BytesIO()
    time = np.arange(4000) / 16_000
    soundfile.write(buffer, 0.1 * np.sin(2 * np.pi * 440 * time), 16_000, format="WAV")
    return buffer.getvalue()
