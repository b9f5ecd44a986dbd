"""Which classifier an index belongs to: only vectors of one joint space compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier
    from anymodal.media.segmentation import Limits


def identity_of(classifier: ModalityAgnosticClassifier, limits: Limits) -> dict[str, Any]:
    """What determines a file's vectors, as JSON values.

    The encoders' names and versions (hashes of weights and preprocessing), the hash of the
    projection's weights, and how much of an item is looked at. Two classifiers whose forests alone
    differ have one identity.
    """
    networks, projection = classifier.networks, classifier.projection
    return {
        **{m: f"{networks[m].name} {networks[m].version}" for m in MODALITIES},
        "projection": f"{projection.kind} {projection.fingerprint}",
        "dim": projection.dim,
        "limits": asdict(limits),
    }


def refuse_other(folder: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise `AnymodalError` unless the index in `folder`, of identity `theirs`, is of `ours`."""
    names = {"audio": "audio encoder", "image": "image encoder", "limits": "length looked at"}
    differs = [names.get(k, k) for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
    if differs:
        raise AnymodalError(
            f"the index in {folder} was made by another classifier ({', '.join(differs)}); give "
            "that one with --model, or build the index anew: `anymodal index FOLDER --rebuild`"
        )
