"""Registered models: every trained translation and classifier becomes a version in MLflow.

A version carries its signature, an input example, its code and its encoders' weights, and the tag
`digest` of the files that it was made from, so that a stage that DVC took from its cache finds the
version it belongs to, or registers it again in a new store.

The alias `champion` marks the version to be used. It goes to a new version where that is better
than the champion by more than the noise (`anymodal.champion` says how that is told), and each
version that was considered carries the decision and its reason as tags. What versions are compared
by, a model's answers to validation rows, is kept with the run that registered it.

Every version has a model card (`anymodal.model_card`, `anymodal.model_card_store`).
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from packaging.requirements import Requirement
from PIL import Image

from anymodal import encoders
from anymodal.champion import Decision, Evidence, decide
from anymodal.encoders.base import MODALITIES
from anymodal.model import ModalityAgnosticClassifier
from anymodal.model_card import FILE as CARD_FILE
from anymodal.model_card import Known, classifier_card, translation_card
from anymodal.model_card_store import describe, describe_translation, digest
from anymodal.params import Params
from anymodal.projection import load_projection
from anymodal.registered_models import CHAMPION, CLASSIFIER, TRANSLATION
from anymodal.storage import read_json
from anymodal.tracking import StageRun, connect
from anymodal.workspace import Workspace

PACKAGE = Path(__file__).parent
_REQUIREMENTS = (
    "mlflow", "torch", "numpy", "pandas", "pydantic", "pyyaml", "psutil", "pyarrow", "safetensors",
    "scikit-learn", "skops", "soundfile", "soxr", "av", "pillow", "efficientnet-lite-pytorch",
    "pooch", "requests", "filelock", "packaging", "h5py", "scipy",
)  # fmt: skip


def register_translation(
    folder: Path,
    tags: Mapping[str, str],
    params: Params,
    run: StageRun | None,
    told: Known | None = None,
) -> str:
    """Register the translation in `folder` unless it is registered already; return its version.

    `tags` are put on the version: pair, pairing, dataset, seed. `told` goes into its card.
    """
    mlflow = connect(params.tracking)
    # looked up first, for loading a projection takes torch, and that seconds
    mark = digest(folder)
    if there := _registered(mlflow, TRANSLATION, mark):
        return there
    projection = load_projection(folder)
    vectors = {m: np.zeros((1, projection.dims[m]), np.float32) for m in MODALITIES}
    example = pd.DataFrame(
        {"modality": MODALITIES, "embedding": [vectors[m][0].tolist() for m in MODALITIES]}
    )
    output = pd.DataFrame(
        {"joint": [projection.project(m, vectors[m])[0].tolist() for m in MODALITIES]}
    )
    card = translation_card(folder, told)
    tags = {**tags, "digest": mark}
    return _register(
        mlflow, TRANSLATION, folder, "projection", "translation.py", example, output, tags, card
    )


def crown_translation(
    workspace: Workspace, pair: str, params: Params, run: StageRun | None
) -> None:
    """Let the best training (lowest validation loss) of `pair` stand for champion."""
    trainings = read_json(workspace.training(pair))
    best = min(trainings["seeds"], key=lambda training: training["valid_loss"])
    folder = workspace.translation(pair, best["seed"])
    tags = {"pair": pair, "pairing": trainings["pairing"], "seed": str(best["seed"])}
    register_translation(folder, tags, params, run)
    # in a new store the version is registered here, and never was described before
    number = describe_translation(workspace, pair, params)
    assert number is not None
    client = connect(params.tracking).MlflowClient()
    found = client.get_model_version(TRANSLATION, number)
    crown(TRANSLATION, number, _evidence(client, found), params, run)


def register_classifier(
    folder: Path,
    classifier: ModalityAgnosticClassifier,
    run: StageRun,
    evidence: Evidence,
    decision: Decision | None = None,
) -> str:
    """Register the saved classifier and let it stand for champion; return its version.

    `evidence` are its answers to validation rows; `decision`, where given, was made elsewhere.
    """
    mlflow = connect(run.params.tracking)
    example = pd.DataFrame({"content": [_example_picture(), _example_sound()]})
    answers = classifier.predict(example["content"].to_list())
    output = pd.DataFrame([answer.as_row() for answer in answers])
    tags: dict[str, str] = {
        name: str(classifier.facts[name])
        for name in ("pair", "pairing", "dataset", "seed", "validation_macro_f1")
        if name in classifier.facts
    }
    run.log_json(evidence.as_dict(), evidence_path(CLASSIFIER))
    written = folder / CARD_FILE
    card = written.read_text(encoding="utf-8") if written.is_file() else classifier_card(folder)
    needed = _extras(network.name for network in classifier.networks.values())
    mark = digest(folder)
    number = _registered(mlflow, CLASSIFIER, mark) or _register(
        mlflow,
        CLASSIFIER,
        folder,
        "classifier",
        "classifier.py",
        example,
        output,
        tags | {"digest": mark},
        card,
        needed,
    )
    crown(CLASSIFIER, number, evidence, run.params, run, decision)
    return number


def crown(
    name: str,
    number: str,
    evidence: Evidence | None,
    params: Params,
    run: StageRun | None,
    decision: Decision | None = None,
) -> Decision:
    """Decide whether version `number` of the model `name` becomes the champion, and make it so.

    The decision is tagged on the version and on the run. `decision`, where given, was made
    elsewhere.
    """
    client = connect(params.tracking).MlflowClient()
    # absent where no version ever was the champion, or where someone took the alias away
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    # MLflow gives versions as text or as numbers
    if str(champion) == str(number):
        return Decision(True, "it is the champion already")
    if decision is None:
        old = None if champion is None else client.get_model_version(name, champion)
        theirs = None if old is None else _evidence(client, old)
        decision = decide(evidence, theirs, exists=old is not None)
    tags = decision.tags()
    if champion is not None:
        tags["champion_before"] = str(champion)
    for tag, value in tags.items():
        client.set_model_version_tag(name, number, tag, value)
    if run is not None:
        run.set_tags({f"{name}.{tag}": value for tag, value in tags.items()})
    if decision.moves:
        client.set_registered_model_alias(name, CHAMPION, number)
    return decision


def evidence_path(name: str) -> str:
    """Artifact of a run with the evidence for the version of model `name` that it registered."""
    return f"evidence/{name}.json"


def _evidence(client: Any, found: Any) -> Evidence | None:
    """What a version's run says of it; None where it says nothing or is gone."""
    from mlflow.exceptions import MlflowException

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(found.run_id, evidence_path(found.name), folder)
            return Evidence.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (MlflowException, OSError, ValueError, KeyError, TypeError):
        return None


def _register(
    mlflow: Any,
    name: str,
    folder: Path,
    artifact: str,
    script: str,
    example: pd.DataFrame,
    output: pd.DataFrame,
    tags: Mapping[str, str],
    card: str,
    extras: Sequence[str] = (),
) -> str:
    client = mlflow.MlflowClient()
    logged = mlflow.pyfunc.log_model(
        name=artifact,
        python_model=str(PACKAGE / "serving" / script),
        artifacts={artifact: str(folder)},
        code_paths=[str(PACKAGE)],
        signature=mlflow.models.infer_signature(example, output),
        input_example=example,
        pip_requirements=[f"{name}=={version(name)}" for name in (*_REQUIREMENTS, *extras)],
        registered_model_name=name,
    )
    number = str(logged.registered_model_version)
    for tag, value in tags.items():
        client.set_model_version_tag(name, number, tag, value)
    describe(client, name, number, card)
    return number


def _registered(mlflow: Any, name: str, mark: str) -> str:
    """The version that was made from files of the same digest, or nothing."""
    client = mlflow.MlflowClient()
    same = client.search_model_versions(f"name = '{name}' and tags.digest = '{mark}'")
    return str(same[0].version) if same else ""


def _extras(names: Iterable[str]) -> list[str]:
    """Packages of the extras (such as `tf`) that encoders need."""
    wanted = {encoders.info(name).extra for name in names} - {""}
    found = [Requirement(text) for text in requires("anymodal") or []]
    return [
        one.name
        for one in found
        if one.marker
        and not one.marker.evaluate({"extra": ""})
        and any(one.marker.evaluate({"extra": extra}) for extra in wanted)
    ]


def _example_picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(buffer, format="PNG")
    return buffer.getvalue()


def _example_sound() -> bytes:
    buffer = io.BytesIO()
    time = np.arange(4000) / 16_000
    soundfile.write(buffer, 0.1 * np.sin(2 * np.pi * 440 * time), 16_000, format="WAV")
    return buffer.getvalue()
