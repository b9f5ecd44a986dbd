"""Stage `classify`: the four systems on the chosen pair, and the classifier to be used."""

from __future__ import annotations

from collections import defaultdict
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
from anymodal.core.workspace import pair_name
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
from anymodal.evaluation.resampling import Resampling
from anymodal.evaluation.significance import comparisons, intervals, zero_shot_shares
from anymodal.pipeline.context import Context
from anymodal.pipeline.features import Features, classification_rows, project
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
    reduced = project(context.projection(pair, rows["train"]), rows)
    settings = ForestSettings.of(params.classify)
    with context.pair_run("classify", pair, "classification") as run:
        outcomes: list[Outcome] = []
        validated: dict[int, float] = {}
        # the classifier is chosen on validation rows; the test rows only ever report
        best: tuple[float, Projection, RandomForestClassifier, int] | None = None
        for seed in context.track(f"classify {name}", context.seeds(params.classify.seeds)):
            projection = context.projection(pair, rows["train"], seed)
            translated = project(projection, rows)
            measured, forest = evaluate(translated, reduced, settings, seed)
            outcomes += measured
            score = validated[seed] = _validation_score(forest, translated)
            if best is None or score > best[0]:
                best = score, projection, forest, seed
        assert best is not None
        result = _record(context, pair, outcomes, run)
        run.log_metrics(over_seeds("valid_macro_f1", "mean", list(validated.values())))
        run.log_metrics({"valid_macro_f1/best": best[0]})
        for seed, score in validated.items():
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
                "test_macro_f1_over_seeds": {"/".join(s.key): s.mean for s in result.summary},
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
    names: dict[Modality, str] = {"audio": audio, "image": image}
    return {m: encoders.get(each, precision=params.embed.precision) for m, each in names.items()}


def scored(
    outcomes: list[Outcome],
    classes: tuple[str, ...],
    groups: Mapping[str, str],
    how: Resampling,
    **facts: Any,
) -> tuple[ClassificationResult, pd.DataFrame]:
    """The scores of all outcomes, and their predictions in one table."""
    predictions = pd.concat(
        [
            o.predictions.assign(system=o.system, regime=o.regime, target=o.target, seed=o.seed)
            for o in outcomes
        ],
        ignore_index=True,
    )
    result = ClassificationResult(
        **facts,
        classes=classes,
        summary=summarise(outcomes),
        intervals=intervals(predictions, classes, groups, how),
        comparisons=comparisons(predictions, classes, groups, how),
        zero_shot_share=zero_shot_shares(predictions, classes, groups, how),
        outcomes=tuple(
            SeedScore(**{name: getattr(o, name) for name in SeedScore.model_fields})
            for o in outcomes
        ),
    )
    return result, predictions


def _record(
    context: Context, pair: tuple[str, str], outcomes: list[Outcome], run: StageRun
) -> ClassificationResult:
    """Write and log the results."""
    workspace, tested = context.workspace, context.subset("classification", "test")
    result, predictions = scored(
        outcomes,
        context.dataset.classes,
        dict(zip(tested["clip_id"], tested["group"], strict=True)),
        context.resampling,
        **context.measured(pair),
        forest=ForestSettings.of(context.params.classify),
    )
    write_parquet(workspace.predictions, predictions)
    result.write(workspace.classification)
    # nested is the form in which DVC shows and compares metrics
    metrics: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(dict))
    for score in result.summary:
        metrics[score.system][score.regime][score.target] = round(score.mean, 6)
    for target, share in result.zero_shot_share.items():
        if share.share is not None:
            metrics["zero_shot_share"][target] = round(share.share, 6)
    write_json(workspace.metrics, metrics)
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
    return result


def _validation_score(forest: RandomForestClassifier, features: Features) -> float:
    """Mean over the modalities of the macro F1 on their validation rows."""
    scores = [
        macro_f1(rows.instruments, forest.predict(rows.features), forest.classes_)
        for rows in features["valid"].values()
    ]
    return float(np.mean(scores))
