"""The registered versions' model cards: kept with the run that registered the version, and as the
version's description as far as MLflow has room there.

A card says what is known when the version is registered; stages that come later write it anew with
what they measured.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from anymodal.model_card import FILE, classifier_card, known, translation_card
from anymodal.model_card_text import shortened, version_section
from anymodal.params import Params
from anymodal.registered_models import CLASSIFIER, TRANSLATION, card_path
from anymodal.storage import read_json
from anymodal.tracking import connect
from anymodal.workspace import Workspace

_ABOUT = {
    TRANSLATION: (
        "Takes embeddings of sounds and pictures into one joint space. A version for every pair of "
        "encoders and training; `champion` marks the one in use, of the pair that retrieves best. "
        "Each version's description is its model card."
    ),
    CLASSIFIER: (
        "Names the instrument in a sound, a picture or a film, whichever is at hand. `champion` "
        "marks the version in use: it goes to a newer one that is better on validation rows by "
        "more than the noise. Each version's description is its model card."
    ),
}
"""Descriptions of the models, whatever the version."""


def describe_translation(workspace: Workspace, pair: str, params: Params) -> str | None:
    """Write the card of a pair's best translation anew, with its retrieval scores; return its
    version, None where it is not registered."""
    trainings = read_json(workspace.training(pair))
    best = min(trainings["seeds"], key=lambda training: training["valid_loss"])
    folder = workspace.translation(pair, best["seed"])
    told = known(workspace, pair, retrieval=True)
    return _describe_again(TRANSLATION, folder, translation_card(folder, told), params)


def describe_classifier(workspace: Workspace, params: Params) -> str | None:
    """Write the card of the project's classifier anew, with its scores across sources; return its
    version, None where it is not registered."""
    folder = workspace.classifier
    if not (folder / "model.json").is_file():
        return None
    pair = read_json(folder / "model.json")["facts"]["pair"]
    told = known(workspace, pair, results=True, across=True)
    return _describe_again(CLASSIFIER, folder, classifier_card(folder, told), params)


def _describe_again(name: str, folder: Path, card: str, params: Params) -> str | None:
    client = connect(params.tracking).MlflowClient()
    found = client.search_model_versions(f"name = '{name}' and tags.digest = '{digest(folder)}'")
    if not found:
        return None
    describe(client, name, str(found[0].version), card)
    return str(found[0].version)


def describe(client: Any, name: str, number: str, card: str) -> None:
    """Keep a version's card: whole with its run, and as description what has room there."""
    found = client.get_model_version(name, number)
    tags = client.get_run(found.run_id).data.tags
    commit = tags.get("mlflow.source.git.commit", "")
    changed = " with uncommitted changes" if tags.get("git.dirty") == "true" else ""
    lines = [
        f"`models:/{name}/{number}`",
        f"anymodal {tags.get('anymodal.version', 'of unknown version')}, "
        + (f"commit {commit}{changed}" if commit else "of unknown commit"),
        f"MLflow run {found.run_id}",
    ]
    if "tuned_by" in found.tags:
        lines.append(f"found by the search {found.tags['tuned_by']}")
    whole = card + version_section(lines)
    client.log_text(found.run_id, whole, card_path(name))
    rest = f"\nThe rest of this card: `{card_path(name)}` of the run, or `anymodal runs card`.\n"
    client.update_model_version(name, number, shortened(whole, rest=rest))
    client.update_registered_model(name, _ABOUT[name])


def digest(folder: Path) -> str:
    """Hash of a folder's file names and contents, 16 hex digits; a card is no part of a model."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / FILE:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
