"""From pretrained embeddings into the joint space: the translation, and PCA as its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anymodal.core.modality import Modality
    from anymodal.projection.base import Projection


def load_projection(
    folder: str | Path, expect_versions: Mapping[Modality, str] | None = None
) -> Projection:
    """Load what a projection's `save` wrote.

    `expect_versions` maps a modality to the version of the encoder in use; another one than the
    projection was made with is refused, a modality left out is not checked. Raises
    `AnymodalError` for missing or corrupt files too.
    """
    # here, not above: the command line's help must not wait for torch
    from anymodal.projection.artifact import read_artifact

    artifact = read_artifact(folder, expect_versions)
    if artifact.kind == "translation":
        from anymodal.projection.translation import Translation

        return Translation.from_artifact(artifact, folder)
    from anymodal.projection.pca import PCAProjection

    return PCAProjection.from_artifact(artifact, folder)
