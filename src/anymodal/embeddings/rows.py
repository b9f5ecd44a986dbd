"""Embeddings joined to the clip table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from anymodal.core.modality import MODALITIES, Modality
from anymodal.embeddings.cache import EmbeddingCache


@dataclass(frozen=True)
class Rows:
    """Embeddings of some clips in one modality."""

    clips: pd.DataFrame
    """Their rows of the clip table, with a plain index."""
    matrix: np.ndarray
    """float32 (rows, dim)."""
    version: str
    """The encoder's."""

    def take(self, kept: np.ndarray) -> Rows:
        """The rows that a boolean mask or an array of positions selects."""
        clips = self.clips[kept] if kept.dtype == bool else self.clips.iloc[kept]
        return Rows(clips.reset_index(drop=True), self.matrix[kept], self.version)


PairRows = dict[Modality, Rows]
"""Rows of a pair of encoders, by modality."""


def read_rows(folder: Path, clips: pd.DataFrame, encoder: str, modality: Modality) -> Rows:
    """The clips that have `modality` and could be embedded by `encoder`, with their embeddings.

    `folder` is the embedding cache.
    """
    cache = EmbeddingCache(folder).open(encoder)
    clips = clips[clips[modality].notna()]
    clips = clips[cache.has(clips["clip_id"].to_list())].reset_index(drop=True)
    return Rows(clips, cache.rows_of(clips["clip_id"].to_list()), cache.version)


def read_pair(folder: Path, clips: pd.DataFrame, audio: str, image: str) -> PairRows:
    """The embeddings of `clips` by a pair of encoders.

    Clip-paired rows are kept only where both modalities could be embedded, so that row i of both
    is the same clip.
    """
    rows = {
        modality: read_rows(folder, clips, encoder, modality)
        for modality, encoder in zip(MODALITIES, (audio, image), strict=True)
    }
    if len(clips) and clips["pairing"].iloc[0] == "clip":
        both = set(rows["audio"].clips["clip_id"]) & set(rows["image"].clips["clip_id"])
        for modality, each in rows.items():
            rows[modality] = each.take(each.clips["clip_id"].isin(both).to_numpy())
    return rows


def versions(rows: Mapping[Modality, Rows]) -> dict[Modality, str]:
    """Each modality's encoder version."""
    return {modality: each.version for modality, each in rows.items()}
