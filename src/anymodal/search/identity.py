"""Which classifier an index belongs to: only vectors of one joint space compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What differs between two identities, in words; empty if nothing does."""
    names = {"audio": "audio encoder", "image": "image encoder", "limits": "length looked at"}
    keys = dict.fromkeys([*ours, *theirs])
    return ", ".join(names.get(key, key) for key in keys if ours.get(key) != theirs.get(key))
