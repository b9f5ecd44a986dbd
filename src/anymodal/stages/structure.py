"""Stage `structure`: where the classes lie in the joint space, and which of them suffer (paper,
section 4.3, Figs. 4 to 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from anymodal.encoders.base import MODALITIES, Modality
from anymodal.errors import AnymodalError
from anymodal.per_class import class_scores, label_correlations, label_counts
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.report.space_figures import structure_figure
from anymodal.report.tables import answers
from anymodal.run_metrics import of_structure
from anymodal.significance import by_seed
from anymodal.stages.base import (
    Context,
    Rows,
    dataset_facts,
    drawn_clips,
    encoder_pair,
    pair_run,
    part,
    seeds_of,
    versions,
)
from anymodal.stages.select import selected_pair
from anymodal.storage import write_json
from anymodal.structure import Structure
from anymodal.structure import structure as structure_of
from anymodal.workspace import Workspace, pair_name

REGIMES = ("zero-shot", "all")


def structure(context: Context) -> dict[str, Any]:
    """Run the stage; return what `structure.json` holds.

    Distances rest on the test split of the classification subset (paper, section 3.3), label
    counts on the training split of the translation subset.
    """
    workspace, params = context.workspace, context.params
    facts = dataset_facts(workspace)
    audio, image = selected_pair(workspace, params)
    pair = pair_name(audio, image)
    clips = drawn_clips(workspace)
    test = encoder_pair(workspace, part(clips, "classification", "test"), audio, image)
    used, classes = versions(test), facts["classes"]
    predictions = _predictions(workspace)
    with pair_run(
        context, "structure", audio, image, "classification", part(clips, "classification", "test")
    ) as run:
        reduced = _structure(load_projection(workspace.pca(pair), used), test, classes)
        translated = {
            seed: _structure(
                load_projection(workspace.translation(pair, seed), used), test, classes
            )
            for seed in seeds_of(params.seed, params.classify.seeds)
        }
        seen = _label_counts(part(clips, "translation", "train"), classes)
        told = {
            "dataset": facts["name"],
            "pairing": facts["pairing"],
            "pair": pair,
            "classes": classes,
            "test_rows": {m: len(test[m].clips) for m in MODALITIES},
            "pca": reduced.to_json(),
            "translated": [{"seed": s, **one.to_json()} for s, one in translated.items()],
            "label_counts": {m: counts.tolist() for m, counts in seen.items()},
            "correlations": _correlations(predictions, seen, classes, params.seed),
        }
        write_json(workspace.structure / "structure.json", told)
        run.log_metrics(of_structure(told).metrics)
        run.log_file(workspace.structure / "structure.json")
        first = next(iter(translated.values()))
        run.log_figure(structure_figure(reduced, "modality"), "structure-pca.png")
        run.log_figure(structure_figure(first, "instrument"), "structure-translated.png")
    return told


def _structure(
    projection: Projection, rows: Mapping[Modality, Rows], classes: list[str]
) -> Structure:
    return structure_of(
        {m: projection.project(m, one.matrix) for m, one in rows.items()},
        {m: one.clips["instrument"].to_numpy(dtype=str) for m, one in rows.items()},
        classes,
    )


def _label_counts(clips: pd.DataFrame, classes: list[str]) -> dict[str, np.ndarray]:
    """Clips of each class that trained the translation, by modality."""
    counts = {}
    for modality in MODALITIES:
        rows = clips[clips[modality].notna()]
        counts[str(modality)] = label_counts(
            rows["labels"].to_list(), rows["instrument"].to_numpy(dtype=object), classes
        )
    return counts


def _correlations(
    predictions: pd.DataFrame, seen: Mapping[str, np.ndarray], classes: list[str], seed: int
) -> list[dict[str, Any]]:
    """How MMT's F1 of a class goes with how often the translation saw the class."""
    found = []
    for target in MODALITIES:
        for regime in REGIMES:
            rows = answers(predictions, "MMT", regime, target)
            if rows.empty:
                continue
            _, truth, predicted = by_seed(rows)
            f1 = class_scores(truth, predicted, classes).mean
            for modality, methods in label_correlations(seen, f1, seed=seed).items():
                for correlation in methods.values():
                    found.append(
                        {
                            "target": target,
                            "regime": regime,
                            "counts_of": modality,
                            **asdict(correlation),
                        }
                    )
    return found


def _predictions(workspace: Workspace) -> pd.DataFrame:
    path = workspace.classification / "predictions.parquet"
    if not path.is_file():
        raise AnymodalError(f"no {path}; run `anymodal classify` first")
    return pd.read_parquet(path)
