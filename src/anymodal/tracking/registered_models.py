"""The registered models' names, and reading their cards; light, for the command line."""

from __future__ import annotations

from typing import Any

from anymodal.errors import AnymodalError
from anymodal.mlflow_store import connect
from anymodal.params import TrackingParams

TRANSLATION = "anymodal-translation"
CLASSIFIER = "anymodal-classifier"
CHAMPION = "champion"
"""Alias of the registered version that is meant to be used."""


def read_card(tracking: TrackingParams, name: str, number: str = "") -> str:
    """The card of a version: of the one that `number` names, else of the champion, else of the
    newest. Raises `AnymodalError` where there is none."""
    mlflow = connect(tracking)
    client = mlflow.MlflowClient()
    try:
        # in SQL stores the version is a number
        versions = {str(one.version): one for one in client.search_model_versions(f"name='{name}'")}
        champion = client.get_registered_model(name).aliases.get(CHAMPION) if versions else None
    except mlflow.MlflowException as error:
        raise AnymodalError(f"MLflow: {str(error).splitlines()[0]}") from error
    if not versions:
        raise AnymodalError(
            f"no registered model {name!r}; the models are {TRANSLATION} and {CLASSIFIER}, and "
            "`anymodal run` registers them"
        )
    newest = max(versions, key=int)
    found = versions.get(number or str(champion or newest))
    if found is None:
        there = ", ".join(sorted(versions, key=int))
        raise AnymodalError(f"{name} has no version {number}; its versions are: {there}")
    try:
        return str(mlflow.artifacts.load_text(_artifact(found, card_path(name))))
    except (mlflow.MlflowException, OSError):
        return str(found.description or f"# {name}, version {found.version}\n\nNo card.\n")


def card_path(name: str) -> str:
    """Artifact of a run with the card of the version of model `name` that it registered."""
    return f"cards/{name}.md"


def _artifact(found: Any, path: str) -> str:
    return f"runs:/{found.run_id}/{path}"
