"""A projection on disk: both modalities' weights and scalers, and what they were made from.

projection.json         format, kind, encoders (name, version, dim), joint dim, settings, pairing,
                        seed, and the weights' SHA-256
projection.safetensors  the arrays; nothing is pickled

The JSON is written last: a folder whose writing was cut short is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import read_json, write_bytes, write_json
from anymodal.data.clips import PAIRINGS
from anymodal.encoders.base import Encoder

FORMAT = 1
HEADER = "projection.json"
WEIGHTS = "projection.safetensors"


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
    pairing: str
    """`clip` or `class`, see `anymodal.data.clips`."""
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Hyper-parameters, JSON values."""

    def encoder(self, modality: Modality) -> EncoderRef:
        """The encoder of one modality."""
        return self.audio if modality == "audio" else self.image


@dataclass(frozen=True)
class Artifact:
    """The content of a projection's folder."""

    kind: str
    dim: int
    origin: Origin
    arrays: dict[str, np.ndarray]


def write_artifact(folder: str | Path, artifact: Artifact) -> None:
    """Write `artifact` into `folder`, over an older one if there is any."""
    folder = Path(folder)
    origin = artifact.origin
    if origin.pairing not in PAIRINGS:
        raise AnymodalError(f"pairing must be one of {', '.join(PAIRINGS)}, not {origin.pairing!r}")
    weights = save_tensors({k: np.ascontiguousarray(v) for k, v in artifact.arrays.items()})
    write_bytes(folder / WEIGHTS, weights)
    header = {
        "format": FORMAT,
        "kind": artifact.kind,
        "dim": artifact.dim,
        "pairing": origin.pairing,
        "seed": origin.seed,
        "encoders": {
            modality: {"name": ref.name, "version": ref.version, "dim": ref.dim}
            for modality in MODALITIES
            for ref in [origin.encoder(modality)]
        },
        "settings": dict(origin.settings),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    write_json(folder / HEADER, header)


def read_artifact(
    folder: str | Path, expect_versions: Mapping[Modality, str] | None = None
) -> Artifact:
    """Read a projection's folder.

    `expect_versions` maps a modality to the version of the encoder whose embeddings will be
    projected; a modality left out is not checked. Raises `AnymodalError` for missing or corrupt
    files, another format, and another encoder version.
    """
    folder = Path(folder)
    kind, dim, origin, digest = _read_header(folder / HEADER)
    for modality, version in (expect_versions or {}).items():
        if modality not in MODALITIES:
            raise AnymodalError(f"no modality {modality!r}; give {' or '.join(MODALITIES)}")
        ref = origin.encoder(modality)
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
    if hashlib.sha256(content).hexdigest() != digest:
        raise _broken(folder, f"has a {WEIGHTS} that does not belong to its {HEADER}")
    try:
        arrays = load_tensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise _broken(folder, f"has a corrupt {WEIGHTS}") from error
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise _broken(folder, f"holds non-finite values in {WEIGHTS}")
    return Artifact(kind, dim, origin, arrays)


def _read_header(path: Path) -> tuple[str, int, Origin, str]:
    if not path.is_file():
        raise AnymodalError(f"no projection in {path.parent}; run `anymodal translate` first")
    try:
        header = read_json(path)
        if header["format"] != FORMAT:
            raise AnymodalError(
                f"{path} has format {header['format']!r}, this anymodal reads {FORMAT}: "
                "run `anymodal translate` again"
            )
        refs = {
            modality: EncoderRef(
                str(header["encoders"][modality]["name"]),
                str(header["encoders"][modality]["version"]),
                int(header["encoders"][modality]["dim"]),
            )
            for modality in MODALITIES
        }
        origin = Origin(
            pairing=str(header["pairing"]),
            seed=int(header["seed"]),
            settings=dict(header["settings"]),
            **refs,
        )
        return str(header["kind"]), int(header["dim"]), origin, str(header["sha256"])
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _broken(path.parent, f"has an unreadable {HEADER}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(path.parent, f"has an incomplete {HEADER}") from error


def _broken(folder: Path, what: str) -> AnymodalError:
    return AnymodalError(f"the projection in {folder} {what}: run `anymodal translate` again")
