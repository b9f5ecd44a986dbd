"""What classifiers are trained and tested on: the classification subset in a joint space."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from anymodal.classification import LabelledFeatures
from anymodal.dataset.clips import SPLITS
from anymodal.encoders.base import Modality
from anymodal.projection.base import Projection
from anymodal.stages.base import Rows, encoder_pair, part
from anymodal.workspace import Workspace

SplitRows = dict[str, dict[Modality, Rows]]
"""Embeddings by split and modality."""
Features = dict[str, dict[Modality, LabelledFeatures]]
"""Projected embeddings with their instruments, by split and modality."""


def classification_rows(
    workspace: Workspace, clips: pd.DataFrame, audio: str, image: str
) -> SplitRows:
    """Embeddings of the classification subset of `clips` by a pair of encoders."""
    return {
        split: encoder_pair(workspace, part(clips, "classification", split), audio, image)
        for split in SPLITS
    }


def project(projection: Projection, rows: Mapping[str, Mapping[Modality, Rows]]) -> Features:
    """The rows in the joint space of `projection`."""
    return {
        split: {
            modality: LabelledFeatures(
                projection.project(modality, one.matrix),
                one.clips["instrument"].to_numpy(dtype=str),
                one.clips["clip_id"].to_numpy(dtype=str),
            )
            for modality, one in modalities.items()
        }
        for split, modalities in rows.items()
    }
