"""The registered models' names, and reading their cards; light, for the command line."""

from __future__ import annotations

from anymodal.config.params import TrackingParams
from anymodal.core.errors import AnymodalError
from anymodal.tracking.store import connect

TRANSLATION = "anymodal-translation"
CLASSIFIER = "anymodal-classifier"
CHAMPION = "champion"
"""Alias of the registered version that is meant to be used."""


def read_card(tracking: TrackingParams, name: str, number: str = "") -> str:
    """The card of version `number`; by default of the champion, else of the newest version.

    Raises `AnymodalError` where there is none.
    """
    mlflow = connect(tracking)
    client = mlflow.MlflowClient()
    try:
        # in SQL stores the version is a number
        versions = {
            str(each.version): each for each in client.search_model_versions(f"name='{name}'")
        }
        champion = client.get_registered_model(name).aliases.get(CHAMPION) if versions else None
    except mlflow.MlflowException as error:
        raise AnymodalError(f"MLflow: {str(error).splitlines()[0]}") from error
    if not versions:
        raise AnymodalError(
            f"no registered model {name!r}; the models are {TRANSLATION} and {CLASSIFIER}, and "
            "`anymodal run` registers them"
        )
    newest = max(versions, key=int)
    chosen = versions.get(number or str(champion or newest))
    if chosen is None:
        listed = ", ".join(sorted(versions, key=int))
        raise AnymodalError(f"{name} has no version {number}; its versions are: {listed}")
    try:
        return str(mlflow.artifacts.load_text(f"runs:/{chosen.run_id}/{card_path(name)}"))
    except (mlflow.MlflowException, OSError):
        return str(chosen.description or f"# {name}, version {chosen.version}\n\nNo card.\n")


def card_path(name: str) -> str:
    """Artifact of a run with the card of the version of model `name` that it registered."""
    return f"cards/{name}.md"
