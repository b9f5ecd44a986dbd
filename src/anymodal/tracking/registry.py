"""Registered models: every trained translation and classifier is a version in MLflow.

A version carries its signature, an input example, its code, its encoders' weights, its model card
as description, and the tag `digest` of its files, by which a stage whose outputs DVC restored finds
its version. The alias `champion` moves to a new version that is better than the present one by more
than the noise (`anymodal.tracking.promotion`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from packaging.requirements import Requirement
from PIL import Image

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.config.params import TrackingParams
from anymodal.core.modality import MODALITIES
from anymodal.core.storage import read_json
from anymodal.core.workspace import Workspace
from anymodal.encoders import registry as encoders
from anymodal.projection import load_projection
from anymodal.projection.trainings import PairTrainings
from anymodal.tracking.cards import FILE as CARD_FILE
from anymodal.tracking.cards import (
    CardInputs,
    classifier_card,
    shortened,
    translation_card,
)
from anymodal.tracking.promotion import Decision, ValidationScores, decide
from anymodal.tracking.registered_models import CHAMPION, CLASSIFIER, TRANSLATION, card_path
from anymodal.tracking.runs import StageRun
from anymodal.tracking.store import connect

PACKAGE = Path(__file__).parents[1]
_REQUIREMENTS = (
    "mlflow", "torch", "numpy", "pandas", "pydantic", "pyyaml", "psutil", "pyarrow", "safetensors",
    "scikit-learn", "skops", "soundfile", "soxr", "av", "pillow", "efficientnet-lite-pytorch",
    "pooch", "requests", "filelock", "packaging", "h5py", "scipy",
)  # fmt: skip
_ABOUT = {
    TRANSLATION: (
        "Projects embeddings of audio and images into one joint space. One version per pair of "
        "encoders and training; `champion` marks the one in use, of the pair that retrieves best. "
        "Each version's description is its model card."
    ),
    CLASSIFIER: (
        "Classifies the instrument in audio, images and videos. `champion` marks the version in "
        "use: it moves to one that is better on validation rows by more than the noise. Each "
        "version's description is its model card."
    ),
}


def register_translation(folder: Path, tags: Mapping[str, str], tracking: TrackingParams) -> str:
    """Register the translation in `folder`, unless it is registered; return its version."""
    mlflow = connect(tracking)
    mark = digest(folder)
    # looked up first: loading a projection takes torch, which takes seconds
    if number := _registered(mlflow, TRANSLATION, mark):
        return number
    projection = load_projection(folder)
    zeros = [np.zeros((1, projection.dims[m]), np.float32) for m in MODALITIES]
    example = pd.DataFrame({"modality": MODALITIES, "embedding": [x[0].tolist() for x in zeros]})
    joint = [projection.project(m, x)[0] for m, x in zip(MODALITIES, zeros, strict=True)]
    output = pd.DataFrame({"joint": [vector.tolist() for vector in joint]})
    tags = {**tags, "digest": mark}
    number = _register(mlflow, TRANSLATION, folder, "projection", example, output, tags)
    card = translation_card(folder, CardInputs())
    _describe(mlflow.MlflowClient(), TRANSLATION, number, card)
    return number


def register_classifier(
    folder: Path,
    classifier: ModalityAgnosticClassifier,
    run: StageRun,
    scores: ValidationScores,
    decision: Decision | None = None,
) -> str:
    """Register the saved classifier, decide on its promotion, and return its version.

    `decision`, where given, was made elsewhere.
    """
    mlflow = connect(run.params.tracking)
    run.log_json(scores.as_dict(), validation_scores_path(CLASSIFIER))
    mark = digest(folder)
    number = _registered(mlflow, CLASSIFIER, mark)
    if not number:
        example = pd.DataFrame({"content": [_example_image(), _example_audio()]})
        answers = classifier.predict(example["content"].to_list())
        output = pd.DataFrame([answer.as_row() for answer in answers])
        named = ("pair", "pairing", "dataset", "seed", "validation_macro_f1")
        tags = {n: str(classifier.facts[n]) for n in named if n in classifier.facts}
        extras = _extras(network.name for network in classifier.networks.values())
        tags["digest"] = mark
        number = _register(mlflow, CLASSIFIER, folder, "classifier", example, output, tags, extras)
        card = folder / CARD_FILE
        text = card.read_text("utf-8") if card.is_file() else classifier_card(folder, CardInputs())
        _describe(mlflow.MlflowClient(), CLASSIFIER, number, text)
    promote(CLASSIFIER, number, scores, run.params.tracking, run, decision)
    return number


def promote(
    name: str,
    number: str,
    scores: ValidationScores | None,
    tracking: TrackingParams,
    run: StageRun,
    decision: Decision | None = None,
) -> Decision:
    """Decide whether version `number` of the model `name` becomes the champion, and make it so.

    The decision is tagged on the version and on the run; where given, it was made elsewhere.
    """
    mlflow = connect(tracking)
    client = mlflow.MlflowClient()
    # absent where no version ever was the champion, or where someone removed the alias
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    # MLflow returns versions as text or as numbers
    if str(champion) == str(number):
        return Decision(True, "it is the champion already")
    if decision is None:
        old = None if champion is None else client.get_model_version(name, champion)
        theirs = None if old is None else _validation_scores(mlflow, old)
        decision = decide(scores, theirs, exists=old is not None)
    tags = decision.tags()
    if champion is not None:
        tags["champion_before"] = str(champion)
    for tag, value in tags.items():
        client.set_model_version_tag(name, number, tag, value)
    run.set_tags({f"{name}.{tag}": value for tag, value in tags.items()})
    if decision.moves:
        client.set_registered_model_alias(name, CHAMPION, number)
    return decision


def promote_translation(workspace: Workspace, pair: str, run: StageRun) -> None:
    """Consider the best training of `pair` for champion; register it first in a new store."""
    tracking = run.params.tracking
    trainings = PairTrainings.read(workspace.training(pair), "translate")
    folder = workspace.translation(pair, trainings.best.seed)
    number = register_translation(folder, translation_tags(trainings), tracking)
    describe_translation(workspace, pair, tracking)
    mlflow = connect(tracking)
    version = mlflow.MlflowClient().get_model_version(TRANSLATION, number)
    scores = _validation_scores(mlflow, version)
    promote(TRANSLATION, number, scores, tracking, run)


def translation_tags(trainings: PairTrainings) -> dict[str, str]:
    """The tags of the version of a pair's best training."""
    seed = str(trainings.best.seed)
    return {"pair": trainings.pair, "pairing": trainings.pairing, "seed": seed}


def describe_translation(workspace: Workspace, pair: str, tracking: TrackingParams) -> None:
    """Write the card of a pair's best translation, if that is registered."""
    trainings = PairTrainings.read(workspace.training(pair), "translate")
    folder = workspace.translation(pair, trainings.best.seed)
    inputs = CardInputs.read(workspace, pair, {"translate", "retrieve"})
    _describe_registered(TRANSLATION, folder, translation_card(folder, inputs), tracking)


def describe_classifier(workspace: Workspace, tracking: TrackingParams) -> None:
    """Write the card of the project's classifier, if that is registered."""
    folder = workspace.classifier
    if (folder / "model.json").is_file():
        pair = read_json(folder / "model.json")["facts"]["pair"]
        inputs = CardInputs.read(workspace, pair, {"translate", "classify", "cross_source"})
        _describe_registered(CLASSIFIER, folder, classifier_card(folder, inputs), tracking)


def validation_scores_path(name: str) -> str:
    """Artifact of a run with the scores of the version of model `name` that it registered."""
    return f"validation/{name}.json"


def digest(folder: Path) -> str:
    """Hash of a folder's file names and contents but for its card, 16 hex digits."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / CARD_FILE:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _validation_scores(mlflow: Any, registered: Any) -> ValidationScores | None:
    """The scores of a version; None where its run has none or is gone."""
    path = validation_scores_path(registered.name)
    try:
        scores = mlflow.artifacts.load_dict(f"runs:/{registered.run_id}/{path}")
        return ValidationScores.from_dict(scores)
    except (mlflow.MlflowException, OSError, ValueError, KeyError, TypeError):
        return None


def _register(
    mlflow: Any,
    name: str,
    folder: Path,
    artifact: str,
    example: pd.DataFrame,
    output: pd.DataFrame,
    tags: Mapping[str, str],
    extras: Sequence[str] = (),
) -> str:
    script = {TRANSLATION: "translation.py", CLASSIFIER: "classifier.py"}[name]
    logged = mlflow.pyfunc.log_model(
        name=artifact,
        python_model=str(PACKAGE / "classifier" / "flavor" / script),
        artifacts={artifact: str(folder)},
        code_paths=[str(PACKAGE)],
        signature=mlflow.models.infer_signature(example, output),
        input_example=example,
        pip_requirements=[f"{name}=={version(name)}" for name in (*_REQUIREMENTS, *extras)],
        registered_model_name=name,
    )
    number = str(logged.registered_model_version)
    client = mlflow.MlflowClient()
    for tag, value in tags.items():
        client.set_model_version_tag(name, number, tag, value)
    client.update_registered_model(name, _ABOUT[name])
    return number


def _registered(mlflow: Any, name: str, mark: str) -> str:
    """The version that was made from files of the same digest, or nothing."""
    same = mlflow.MlflowClient().search_model_versions(
        f"name = '{name}' and tags.digest = '{mark}'"
    )
    return str(same[0].version) if same else ""


def _describe_registered(name: str, folder: Path, card: str, tracking: TrackingParams) -> None:
    mlflow = connect(tracking)
    if number := _registered(mlflow, name, digest(folder)):
        _describe(mlflow.MlflowClient(), name, number, card)


def _describe(client: Any, name: str, number: str, card: str) -> None:
    """Keep a version's card: whole with its run, and as its description as far as it fits."""
    registered = client.get_model_version(name, number)
    tags = client.get_run(registered.run_id).data.tags
    commit = tags.get("mlflow.source.git.commit", "")
    changed = " with uncommitted changes" if tags.get("git.dirty") == "true" else ""
    lines = [
        f"`models:/{name}/{number}`",
        f"anymodal {tags.get('anymodal.version', 'of unknown version')}, "
        + (f"commit {commit}{changed}" if commit else "of unknown commit"),
        f"MLflow run {registered.run_id}",
    ]
    if "tuned_by" in registered.tags:
        lines.append(f"found by the search {registered.tags['tuned_by']}")
    whole = f"{card}\n## Version\n\n" + "".join(f"- {line}\n" for line in lines)
    client.log_text(registered.run_id, whole, card_path(name))
    rest = f"\nThe rest of this card: `{card_path(name)}` of the run, or `anymodal runs card`.\n"
    client.update_model_version(name, number, shortened(whole, rest=rest))


def _extras(names: Iterable[str]) -> list[str]:
    """Packages of the extras (such as `tf`) that encoders need."""
    wanted = {encoders.info(name).extra for name in names} - {""}
    requirements = [Requirement(text) for text in requires("anymodal") or []]
    return [
        each.name
        for each in requirements
        if each.marker
        and not each.marker.evaluate({"extra": ""})
        and any(each.marker.evaluate({"extra": extra}) for extra in wanted)
    ]


def _example_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(buffer, format="PNG")
    return buffer.getvalue()


def _example_audio() -> bytes:
    buffer = io.BytesIO()
    time = np.arange(4000) / 16_000
    soundfile.write(buffer, 0.1 * np.sin(2 * np.pi * 440 * time), 16_000, format="WAV")
    return buffer.getvalue()
