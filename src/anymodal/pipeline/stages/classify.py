"""Stage `classify`: the four systems on the chosen pair, and the classifier to be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from anymodal.classifier.assessment import assess_calibrator
from anymodal.classifier.fit import attach_calibration
from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.config.params import Params
from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import write_json, write_parquet, write_text
from anymodal.core.workspace import Workspace, pair_name
from anymodal.embeddings.rows import versions
from anymodal.encoders import registry as encoders
from anymodal.encoders.base import Encoder
from anymodal.evaluation.classification import (
    ClassificationResult,
    Outcome,
    SeedScore,
    evaluate,
    summarise,
)
from anymodal.evaluation.forests import ForestSettings, macro_f1
from anymodal.evaluation.significance import comparisons, intervals, zero_shot_shares
from anymodal.pipeline.context import Context
from anymodal.pipeline.features import Features, classification_rows, project
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.report.calibration_figures import reliability_figure
from anymodal.report.figures import confusion_figure, scores_figure
from anymodal.tracking import registry
from anymodal.tracking.cards import FILE as CARD_FILE
from anymodal.tracking.cards import CardInputs, classifier_card
from anymodal.tracking.metric_names import metric_name
from anymodal.tracking.metrics import of_calibration, of_classification, over_seeds
from anymodal.tracking.promotion import classifier_scores
from anymodal.tracking.runs import StageRun


def classify(context: Context) -> ClassificationResult:
    """Run the stage."""
    workspace, params = context.workspace, context.params
    pair = context.selected_pair
    name = pair_name(*pair)
    rows = classification_rows(context, pair)
    used = versions(rows["train"])
    reduced = project(load_projection(workspace.pca(name), used), rows)
    settings = ForestSettings.of(params.classify)
    clips = context.subset("classification")
    with context.pair_run("classify", pair, "classification", clips) as run:
        outcomes: list[Outcome] = []
        validated: list[float] = []
        # the classifier is chosen on validation rows; the test rows only ever report
        best: tuple[float, Projection, RandomForestClassifier, int] | None = None
        seeds = context.seeds(params.classify.seeds)
        with context.progress(f"classify {name}") as advance:
            for done, seed in enumerate(seeds):
                advance(done, len(seeds))
                projection = load_projection(workspace.translation(name, seed), used)
                translated = project(projection, rows)
                measured, forest = evaluate(translated, reduced, settings, seed)
                outcomes += measured
                score = _validation_score(forest, translated)
                validated.append(score)
                if best is None or score > best[0]:
                    best = score, projection, forest, seed
            advance(len(seeds), len(seeds))
        assert best is not None
        result = _measured(context, pair, outcomes)
        _record(workspace, result, outcomes, run)
        run.log_metrics(over_seeds("valid_macro_f1", "mean", validated))
        run.log_metrics({"valid_macro_f1/best": best[0]})
        for seed, score in zip(seeds, validated, strict=True):
            run.log_metrics({"valid_macro_f1_by_seed/mean": score}, step=seed)
        score, projection, forest, seed = best
        classifier = ModalityAgnosticClassifier(
            projection,
            forest,
            networks(params, *pair),
            {
                "dataset": context.dataset.name,
                "pairing": context.dataset.pairing,
                "pair": name,
                "seed": seed,
                "train_rows": {m: len(rows["train"][m].clips) for m in MODALITIES},
                "validation_macro_f1": score,
                "test_macro_f1_over_seeds": _means(result),
            },
        )
        features = project(projection, rows)
        more = {s: context.rows(pair, "translation", s) for s in ("train", "valid")}
        attach_calibration(classifier, features, rows, more, params.classify, params.seed)
        calibration = assess_calibrator(
            classifier, features, rows, params.classify.bootstrap, params.seed
        )
        calibration.write(workspace.calibration)
        run.log_metrics(of_calibration(calibration).metrics)
        run.log_file(workspace.calibration)
        run.log_figure(reliability_figure(calibration), "reliability.png")
        classifier.save(workspace.classifier)
        inputs = CardInputs.read(workspace, name, {"translate", "classify"})
        write_text(workspace.classifier / CARD_FILE, classifier_card(workspace.classifier, inputs))
        if params.tracking.register_models:
            scores = classifier_scores(classifier, rows["valid"], context.dataset)
            registry.register_classifier(workspace.classifier, classifier, run, scores)
    return result


def networks(params: Params, audio: str, image: str) -> dict[Modality, Encoder]:
    """The encoders that a classifier is built with."""
    return {
        "audio": encoders.get(audio, precision=params.embed.precision),
        "image": encoders.get(image, precision=params.embed.precision),
    }


def _measured(
    context: Context, pair: tuple[str, str], outcomes: list[Outcome]
) -> ClassificationResult:
    tested = context.subset("classification", "test")
    groups = dict(zip(tested["clip_id"], tested["group"], strict=True))
    predictions, classes, how = _predictions(outcomes), context.dataset.classes, context.resampling
    return ClassificationResult(
        **context.measured(pair),
        classes=classes,
        forest=ForestSettings.of(context.params.classify),
        summary=summarise(outcomes),
        intervals=intervals(predictions, classes, groups, how),
        comparisons=comparisons(predictions, classes, groups, how),
        zero_shot_share=zero_shot_shares(predictions, classes, groups, how),
        outcomes=tuple(
            SeedScore(**{name: getattr(o, name) for name in SeedScore.model_fields})
            for o in outcomes
        ),
    )


def _predictions(outcomes: list[Outcome]) -> pd.DataFrame:
    return pd.concat(
        [
            o.predictions.assign(system=o.system, regime=o.regime, target=o.target, seed=o.seed)
            for o in outcomes
        ],
        ignore_index=True,
    )


def _record(
    workspace: Workspace, result: ClassificationResult, outcomes: list[Outcome], run: StageRun
) -> None:
    """Write and log the results."""
    predictions = _predictions(outcomes)
    write_parquet(workspace.predictions, predictions)
    result.write(workspace.classification)
    headline = {
        f"zero_shot_share/{target}": share.share
        for target, share in result.zero_shot_share.items()
        if share.share is not None
    }
    write_json(workspace.metrics, _nested(_means(result) | headline))
    logged = of_classification(result)
    run.log_params(logged.params, headline=True)
    run.log_metrics(logged.metrics)
    run.log_table(pd.DataFrame([c.model_dump() for c in result.comparisons]), "comparisons")
    for o in outcomes:
        curve = metric_name("macro_f1_by_seed", o.system, o.regime, o.target)
        run.log_metrics({curve: o.macro_f1}, step=o.seed)
    run.log_table(pd.DataFrame([s.model_dump() for s in result.summary]), "summary")
    run.log_file(workspace.classification)
    run.log_figure(scores_figure(result), "scores.png")
    for target in MODALITIES:
        figure = confusion_figure(predictions, result.classes, "MMT", "zero-shot", target)
        run.log_figure(figure, f"confusion-zero-shot-{target}.png")


def _means(result: ClassificationResult) -> dict[str, float]:
    """Mean scores by `system/regime/target`."""
    return {"/".join(score.key): score.mean for score in result.summary}


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
