"""Stage `classify`: the four systems on the chosen pair, and the classifier to be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from anymodal import encoders
from anymodal.classification import LabelledFeatures, Outcome, evaluate, macro_f1, summarise
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.model import ModalityAgnosticClassifier
from anymodal.params import Params
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.registry import register_classifier
from anymodal.report.figures import confusion_figure, scores_figure
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
from anymodal.storage import write_json, write_parquet
from anymodal.tracking import StageRun
from anymodal.workspace import Workspace, pair_name

Features = dict[str, dict[Modality, LabelledFeatures]]
"""Features by split and modality."""


def classify(context: Context) -> pd.DataFrame:
    """Run the stage; return the summary (see `anymodal.classification.summarise`)."""
    workspace, params = context.workspace, context.params
    facts = dataset_facts(workspace)
    audio, image = selected_pair(workspace, params)
    pair = pair_name(audio, image)
    clips = part(drawn_clips(workspace), "classification")
    rows = {
        split: encoder_pair(workspace, part(clips, "classification", split), audio, image)
        for split in ("train", "valid", "test")
    }
    used = versions(rows["train"])
    reduced = _features(load_projection(workspace.pca(pair), used), rows)
    with pair_run(context, "classify", audio, image, "classification", clips) as run:
        outcomes: list[Outcome] = []
        # the champion is chosen on validation rows; the test rows only ever report
        champion: tuple[float, Projection, RandomForestClassifier, int] | None = None
        seeds = seeds_of(params.seed, params.classify.seeds)
        with context.progress(f"classify {pair}") as advance:
            for done, seed in enumerate(seeds):
                advance(done, len(seeds))
                projection = load_projection(workspace.translation(pair, seed), used)
                translated = _features(projection, rows)
                evaluation = evaluate(
                    translated, reduced, params.classify.trees, params.classify.max_depth, seed
                )
                outcomes += evaluation.outcomes
                score = _validation_score(evaluation.forest, translated)
                run.log_metrics({"validation/macro_f1": score}, step=seed)
                if champion is None or score > champion[0]:
                    champion = score, projection, evaluation.forest, seed
            advance(len(seeds), len(seeds))
        assert champion is not None
        summary = summarise(outcomes)
        metrics = _record(workspace, params, facts, pair, outcomes, summary, run)
        score, projection, forest, seed = champion
        classifier = ModalityAgnosticClassifier(
            projection,
            forest,
            {"audio": encoders.get(audio), "image": encoders.get(image)},
            {
                "dataset": facts["name"],
                "pairing": facts["pairing"],
                "pair": pair,
                "seed": seed,
                "train_rows": {m: len(rows["train"][m].clips) for m in MODALITIES},
                "validation_macro_f1": score,
                "test_macro_f1_over_seeds": metrics,
            },
        )
        classifier.save(workspace.classifier)
        if params.tracking.register_models:
            register_classifier(workspace.classifier, classifier, run)
    return summary


def _record(
    workspace: Workspace,
    params: Params,
    facts: Mapping[str, Any],
    pair: str,
    outcomes: list[Outcome],
    summary: pd.DataFrame,
    run: StageRun,
) -> dict[str, float]:
    """Write and log the results; return the mean scores by `system/regime/target`."""
    predictions = pd.concat(
        [
            o.predictions.assign(system=o.system, regime=o.regime, target=o.target, seed=o.seed)
            for o in outcomes
        ],
        ignore_index=True,
    )
    folder = workspace.classification
    write_parquet(folder / "predictions.parquet", predictions)
    plain = ("system", "regime", "target", "seed", "macro_f1", "train_rows", "train_rows_of_target")
    write_json(
        folder / "results.json",
        {
            "dataset": facts["name"],
            "pairing": facts["pairing"],
            "pair": pair,
            "classes": facts["classes"],
            "trees": params.classify.trees,
            "max_depth": params.classify.max_depth,
            "summary": summary.to_dict("records"),
            "outcomes": [{name: getattr(o, name) for name in plain} for o in outcomes],
        },
    )
    metrics = {
        f"{row['system']}/{row['regime']}/{row['target']}": row["mean"]
        for row in summary.to_dict("records")
    }
    write_json(folder / "metrics.json", _nested(metrics))
    for o in outcomes:
        run.log_metrics({f"macro_f1/{o.system}/{o.regime}/{o.target}": o.macro_f1}, step=o.seed)
    run.log_metrics({f"summary/macro_f1/{name}": value for name, value in metrics.items()})
    run.log_table(summary, "summary")
    run.log_file(folder / "results.json")
    run.log_figure(scores_figure(summary), "scores.png")
    for target in MODALITIES:
        figure = confusion_figure(predictions, facts["classes"], "MMT", "zero-shot", target)
        run.log_figure(figure, f"confusion-zero-shot-{target}.png")
    return metrics


def _features(projection: Projection, rows: dict[str, dict[Modality, Rows]]) -> Features:
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


def _validation_score(forest: RandomForestClassifier, features: Features) -> float:
    """Mean over the modalities of the macro F1 on their validation rows."""
    scores = [
        macro_f1(rows.instruments, forest.predict(rows.features), forest.classes_)
        for rows in features["valid"].values()
    ]
    return float(np.mean(scores))


def _nested(metrics: Mapping[str, float]) -> dict[str, Any]:
    """`a/b/c` keys as nested sections, the form in which DVC shows and compares metrics."""
    nested: dict[str, Any] = {}
    for name, value in metrics.items():
        *sections, last = name.split("/")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = round(value, 6)
    return nested
