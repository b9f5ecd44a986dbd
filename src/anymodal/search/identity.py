"""Which classifier an index belongs to: only vectors of one joint space compare."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import read_json
from anymodal.encoders.base import Encoder
from anymodal.projection.artifact import HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anymodal.media.segmentation import Limits, SegmentedItem
    from anymodal.projection.base import Projection


class Embedder(Protocol):
    """What of a `ModalityAgnosticClassifier` indexing and searching use."""

    @property
    def sample_rate(self) -> int: ...

    @property
    def networks(self) -> Mapping[Modality, Encoder]: ...

    @property
    def projection(self) -> Projection: ...

    def embed_windows(self, items: Sequence[SegmentedItem]) -> list[dict[Modality, np.ndarray]]: ...


def identity_of(classifier: Embedder, limits: Limits) -> dict[str, Any]:
    """What determines a file's vectors, as JSON values.

    The encoders' names and versions (hashes of weights and preprocessing), the hash of the
    projection's weights, and how much of an item is looked at. Two classifiers whose forests alone
    differ have one identity.
    """
    with tempfile.TemporaryDirectory() as folder:
        classifier.projection.save(folder)
        header = read_json(Path(folder) / HEADER)
    encoders: dict[str, str] = {
        modality: f"{network.name} {network.version}"
        for modality in MODALITIES
        for network in [classifier.networks[modality]]
    }
    return {
        **encoders,
        "projection": f"{header['kind']} {header['sha256']}",
        "dim": int(header["dim"]),
        "limits": asdict(limits),
    }


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What differs between two identities, in words; empty if nothing does."""
    names = {"audio": "sound encoder", "image": "picture encoder", "limits": "length looked at"}
    keys = dict.fromkeys([*ours, *theirs])
    return ", ".join(names.get(key, key) for key in keys if ours.get(key) != theirs.get(key))
