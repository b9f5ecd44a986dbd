"""What every stage shares: its context, and how embeddings meet the clip table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from anymodal.dataset.clips import read_clips
from anymodal.embedding import EmbeddingCache
from anymodal.encoders.base import Modality
from anymodal.errors import AnymodalError
from anymodal.params import Params
from anymodal.storage import read_json
from anymodal.tracking import Basis, StageRun, stage_run
from anymodal.workspace import Workspace, pair_name

Advance = Callable[[int, int], None]
"""Takes what is done and what there is in all."""


@contextmanager
def _silent(_title: str) -> Iterator[Advance]:
    yield lambda done, total: None


@dataclass(frozen=True)
class Context:
    """Where a stage works, with what parameters, and how it tells its progress."""

    workspace: Workspace
    params: Params
    progress: Callable[[str], AbstractContextManager[Advance]] = field(default=_silent)
    say: Callable[[str], None] = field(default=lambda line: None)


@dataclass(frozen=True)
class Rows:
    """Embeddings of some clips in one modality: `matrix` is float32 (rows, dim)."""

    clips: pd.DataFrame
    matrix: np.ndarray
    version: str


def basis(workspace: Workspace) -> Basis:
    """What results of this workspace rest on."""
    facts = dataset_facts(workspace)
    return Basis(facts["name"], facts["pairing"], workspace.clips)


def dataset_facts(workspace: Workspace) -> dict:
    """The facts that the `dataset` stage wrote."""
    if not workspace.dataset.is_file():
        raise AnymodalError(f"no {workspace.dataset}; run `anymodal dataset` first")
    return read_json(workspace.dataset)


def drawn_clips(workspace: Workspace) -> pd.DataFrame:
    """The clip table with its subsets."""
    clips = read_clips(workspace.clips)
    if clips["subset"].isna().any():
        raise AnymodalError(f"{workspace.clips} has no subsets; run `anymodal dataset` first")
    return clips


def embedded(workspace: Workspace, clips: pd.DataFrame, encoder: str, modality: Modality) -> Rows:
    """The rows of `clips` that have `modality` and could be embedded, with their embeddings."""
    cache = EmbeddingCache(workspace.embeddings).open(encoder)
    there = clips[clips[modality].notna()]
    there = there[cache.has(there["clip_id"].to_list())].reset_index(drop=True)
    return Rows(there, cache.rows_of(there["clip_id"].to_list()), cache.version)


def encoder_pair(
    workspace: Workspace, clips: pd.DataFrame, audio: str, image: str
) -> dict[Modality, Rows]:
    """Embeddings of `clips` by a pair of encoders.

    Clip-paired rows are kept only where both modalities could be embedded, so that the two tables
    stay row by row the same moments.
    """
    rows: dict[Modality, Rows] = {
        "audio": embedded(workspace, clips, audio, "audio"),
        "image": embedded(workspace, clips, image, "image"),
    }
    if len(clips) and clips["pairing"].iloc[0] == "clip":
        both = set(rows["audio"].clips["clip_id"]) & set(rows["image"].clips["clip_id"])
        for modality, one in rows.items():
            keep = one.clips["clip_id"].isin(both).to_numpy()
            rows[modality] = Rows(
                one.clips[keep].reset_index(drop=True), one.matrix[keep], one.version
            )
    return rows


@contextmanager
def pair_run(
    context: Context, stage: str, audio: str, image: str, subset: str, clips: pd.DataFrame
) -> Iterator[StageRun]:
    """Open the run of a stage on one pair of encoders and on `clips`, those of `subset`."""
    rests_on = basis(context.workspace)
    with stage_run(stage, context.params, rests_on, pair_name(audio, image)) as run:
        run.log_params(
            {"pair": pair_name(audio, image), "audio_encoder": audio, "image_encoder": image}
        )
        run.log_dataset(clips, rests_on, subset)
        yield run


def versions(rows: Mapping[Modality, Rows]) -> dict[Modality, str]:
    """Each modality's encoder version."""
    return {modality: one.version for modality, one in rows.items()}


def part(clips: pd.DataFrame, subset: str, split: str | None = None) -> pd.DataFrame:
    """Rows of one subset, and of one split of it."""
    chosen = clips["subset"] == subset
    if split is not None:
        chosen &= clips["split"] == split
    return clips[chosen]


def seeds_of(seed: int, count: int) -> list[int]:
    """The seeds of `count` repetitions: consecutive from params.yaml's."""
    return list(range(seed, seed + count))
