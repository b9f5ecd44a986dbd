"""What classifiers are trained and tested on: the classification subset in a joint space."""

from __future__ import annotations

from collections.abc import Mapping

from anymodal.core.modality import Modality
from anymodal.embeddings.rows import Rows
from anymodal.evaluation.forests import LabelledFeatures
from anymodal.projection.base import Projection

Features = dict[str, dict[Modality, LabelledFeatures]]
"""Projected embeddings with their instruments, by split and modality."""


def labelled(
    projection: Projection, rows: Mapping[Modality, Rows]
) -> dict[Modality, LabelledFeatures]:
    """The rows in the joint space of `projection`."""
    return {
        modality: LabelledFeatures(
            projection.project(modality, each.matrix),
            each.clips["instrument"].to_numpy(dtype=str),
            each.clips["clip_id"].to_numpy(dtype=str),
        )
        for modality, each in rows.items()
    }


def project(projection: Projection, rows: Mapping[str, Mapping[Modality, Rows]]) -> Features:
    """The rows of every split in the joint space of `projection`."""
    return {split: labelled(projection, modalities) for split, modalities in rows.items()}
