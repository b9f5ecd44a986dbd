"""What classifiers are trained and tested on: the classification subset in a joint space."""

from __future__ import annotations

from collections.abc import Mapping

from anymodal.core.modality import Modality
from anymodal.data.clips import SPLITS
from anymodal.embeddings.rows import PairRows, Rows
from anymodal.evaluation.forests import LabelledFeatures
from anymodal.pipeline.context import Context
from anymodal.projection.base import Projection

SplitRows = dict[str, PairRows]
"""Embeddings by split and modality."""
Features = dict[str, dict[Modality, LabelledFeatures]]
"""Projected embeddings with their instruments, by split and modality."""


def classification_rows(context: Context, pair: tuple[str, str]) -> SplitRows:
    """Embeddings of the classification subset by a pair of encoders."""
    return {split: context.rows(pair, "classification", split) for split in SPLITS}


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
