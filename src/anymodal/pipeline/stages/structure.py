"""Stage `structure`: where the classes lie in the joint space, and which of them suffer (paper,
section 4.3, Figs. 4 to 6)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import get_args

import numpy as np
import pandas as pd

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.embeddings.rows import PairRows
from anymodal.evaluation.classification import Regime
from anymodal.evaluation.per_class import class_scores, label_correlations, label_counts
from anymodal.evaluation.significance import by_seed, parts
from anymodal.evaluation.structure import (
    ClassCorrelation,
    SeedStructure,
    SpaceStructure,
    StructureResult,
    space_structure,
)
from anymodal.pipeline.context import Context
from anymodal.projection.base import Projection
from anymodal.report.structure_figures import structure_figure
from anymodal.tracking.metrics import of_structure


def structure(context: Context) -> StructureResult:
    """Run the stage.

    Distances rest on the test split of the classification subset (paper, section 3.3), label
    counts on the training split of the translation subset.
    """
    workspace, classes = context.workspace, context.dataset.classes
    pair = context.selected_pair
    test = context.rows(pair, "classification", "test")
    if not workspace.predictions.is_file():
        raise AnymodalError(f"no {workspace.predictions}; run `anymodal classify` first")
    predictions = pd.read_parquet(workspace.predictions)
    seeds = context.seeds(context.params.classify.seeds)
    with context.pair_run("structure", pair, "classification", "test") as run:
        reduced, *translated = [
            _structure(context.projection(pair, test, seed), test, classes)
            for seed in (None, *seeds)
        ]
        counts = _label_counts(context.subset("translation", "train"), classes)
        result = StructureResult(
            **context.measured(pair),
            classes=classes,
            test_rows={m: len(test[m].clips) for m in MODALITIES},
            pca=reduced,
            translated=tuple(
                SeedStructure(seed=seed, **dict(space))
                for seed, space in zip(seeds, translated, strict=True)
            ),
            label_counts={m: tuple(each.tolist()) for m, each in counts.items()},
            correlations=_correlations(predictions, counts, classes, context.params.seed),
        )
        result.write(workspace.structure)
        run.log_metrics(of_structure(result).metrics)
        run.log_file(workspace.structure)
        run.log_figure(structure_figure(reduced, "modality"), "structure-pca.png")
        run.log_figure(
            structure_figure(result.translated[0], "instrument"), "structure-translated.png"
        )
    return result


def _structure(projection: Projection, rows: PairRows, classes: tuple[str, ...]) -> SpaceStructure:
    return space_structure(
        {m: projection.project(m, each.matrix) for m, each in rows.items()},
        {m: each.clips["instrument"].to_numpy(dtype=str) for m, each in rows.items()},
        classes,
    )


def _label_counts(clips: pd.DataFrame, classes: tuple[str, ...]) -> dict[Modality, np.ndarray]:
    """Clips of each class that trained the translation, by modality."""
    rows = {modality: clips[clips[modality].notna()] for modality in MODALITIES}
    return {
        m: label_counts(each["labels"].to_list(), each["instrument"].to_numpy(object), classes)
        for m, each in rows.items()
    }


def _correlations(
    predictions: pd.DataFrame,
    counts: Mapping[Modality, np.ndarray],
    classes: tuple[str, ...],
    seed: int,
) -> tuple[ClassCorrelation, ...]:
    """How MMT's F1 of a class goes with how often the translation saw the class."""
    own = parts(predictions[predictions["system"] == "MMT"], "target", "regime")
    correlations = []
    for key in [key for key in product(MODALITIES, get_args(Regime)) if key in own]:
        answered = by_seed(own[key])
        f1 = class_scores(answered.truth, answered.predicted, classes).mean
        measured = label_correlations({m: counts[m] for m in MODALITIES}, f1, seed=seed)
        correlations += [
            ClassCorrelation(target=key[0], regime=key[1], counts_of=m, **dict(each))
            for m in MODALITIES
            for each in measured[m]
        ]
    return tuple(correlations)
