"""A projection on disk: both modalities' weights and scalers, and what they were made from.

projection.json         format, kind, encoders (name, version, dim), joint dim, settings, pairing,
                        seed, and the weights' SHA-256
projection.safetensors  the arrays; nothing is pickled

The JSON is written last: a folder whose writing was cut short is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.record import Pairing, Record
from anymodal.core.storage import write_bytes, write_json
from anymodal.encoders.base import Encoder

HEADER = "projection.json"
WEIGHTS = "projection.safetensors"

Kind = Literal["translation", "pca"]


@dataclass(frozen=True)
class EncoderRef:
    """Which encoder's embeddings a projection takes."""

    name: str
    version: str
    dim: int

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderRef:
        """The reference to `encoder`."""
        return cls(encoder.name, encoder.version, encoder.dim)


@dataclass(frozen=True)
class Origin:
    """What a projection was made from; saved with it."""

    audio: EncoderRef
    image: EncoderRef
    pairing: Pairing
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters, JSON values."""

    def encoder(self, modality: Modality) -> EncoderRef:
        """The encoder of one modality."""
        return self.audio if modality == "audio" else self.image


@dataclass(frozen=True)
class Artifact:
    """The content of a projection's folder."""

    kind: Kind
    dim: int
    origin: Origin
    arrays: dict[str, np.ndarray]


class _Header(Record):
    format: Literal[1]
    kind: Kind
    dim: int
    pairing: Pairing
    seed: int
    encoders: dict[Modality, EncoderRef]
    settings: dict[str, Any]
    sha256: str


def write_artifact(folder: str | Path, artifact: Artifact) -> None:
    """Write `artifact` into `folder`, over an older one if there is any."""
    folder, origin = Path(folder), artifact.origin
    weights = save_tensors({k: np.ascontiguousarray(v) for k, v in artifact.arrays.items()})
    header = _Header(
        format=1,
        kind=artifact.kind,
        dim=artifact.dim,
        pairing=origin.pairing,
        seed=origin.seed,
        encoders={modality: origin.encoder(modality) for modality in MODALITIES},
        settings=dict(origin.settings),
        sha256=hashlib.sha256(weights).hexdigest(),
    )
    write_bytes(folder / WEIGHTS, weights)
    write_json(folder / HEADER, header.model_dump())


def read_artifact(
    folder: str | Path, expect_versions: Mapping[Modality, str] | None = None
) -> Artifact:
    """Read a projection's folder; see `anymodal.projection.load_projection`."""
    folder = Path(folder)
    header = _Header.read(folder / HEADER, "translate")
    origin = Origin(
        **header.encoders, pairing=header.pairing, seed=header.seed, settings=header.settings
    )
    for modality, version in (expect_versions or {}).items():
        ref = header.encoders[modality]
        if version != ref.version:
            raise AnymodalError(
                f"the projection in {folder} takes {modality} from {ref.name} version "
                f"{ref.version}, not {version}: use that encoder, "
                "or run `anymodal translate` with this one"
            )
    try:
        content = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise _broken(folder, f"has no readable {WEIGHTS}") from error
    if hashlib.sha256(content).hexdigest() != header.sha256:
        raise _broken(folder, f"has a {WEIGHTS} that does not belong to its {HEADER}")
    try:
        arrays = load_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _broken(folder, f"has a corrupt {WEIGHTS}") from error
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise _broken(folder, f"holds non-finite values in {WEIGHTS}")
    return Artifact(header.kind, header.dim, origin, arrays)


def _broken(folder: Path, what: str) -> AnymodalError:
    return AnymodalError(f"the projection in {folder} {what}: run `anymodal translate` again")
