"""Stage `classify`: the four systems on the chosen pair, and the classifier to be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from anymodal import encoders
from anymodal.champion import Evidence
from anymodal.classification import Outcome, evaluate, macro_f1, summarise
from anymodal.encoders.base import MODALITIES, Encoder, Modality
from anymodal.model import ModalityAgnosticClassifier
from anymodal.model_card import FILE as CARD_FILE
from anymodal.model_card import classifier_card, known
from anymodal.params import Params
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.registry import register_classifier
from anymodal.report.figures import confusion_figure, scores_figure
from anymodal.report.judge_figures import reliability_figure
from anymodal.resampling import Resampling
from anymodal.run_metrics import of_classification, of_judge, over_seeds
from anymodal.significance import comparisons, intervals, zero_shot_shares
from anymodal.stages.base import (
    Context,
    Rows,
    dataset_facts,
    drawn_clips,
    pair_run,
    part,
    seeds_of,
    versions,
)
from anymodal.stages.features import Features, classification_rows, project
from anymodal.stages.judging import equip, measure_judge
from anymodal.stages.select import selected_pair
from anymodal.storage import write_json, write_parquet, write_text
from anymodal.tracking import StageRun, metric_name
from anymodal.workspace import Workspace, pair_name


def classify(context: Context) -> pd.DataFrame:
    """Run the stage; return the summary (see `anymodal.classification.summarise`)."""
    workspace, params = context.workspace, context.params
    facts = dataset_facts(workspace)
    audio, image = selected_pair(workspace, params)
    pair = pair_name(audio, image)
    clips = part(drawn_clips(workspace), "classification")
    rows = classification_rows(workspace, clips, audio, image)
    used = versions(rows["train"])
    reduced = project(load_projection(workspace.pca(pair), used), rows)
    with pair_run(context, "classify", audio, image, "classification", clips) as run:
        outcomes: list[Outcome] = []
        validated: list[float] = []
        # the champion is chosen on validation rows; the test rows only ever report
        champion: tuple[float, Projection, RandomForestClassifier, int] | None = None
        seeds = seeds_of(params.seed, params.classify.seeds)
        with context.progress(f"classify {pair}") as advance:
            for done, seed in enumerate(seeds):
                advance(done, len(seeds))
                projection = load_projection(workspace.translation(pair, seed), used)
                translated = project(projection, rows)
                evaluation = evaluate(
                    translated,
                    reduced,
                    params.classify.trees,
                    params.classify.max_depth,
                    seed,
                    min_leaf=params.classify.min_leaf,
                    max_features=params.classify.max_features,
                )
                outcomes += evaluation.outcomes
                score = _validation_score(evaluation.forest, translated)
                validated.append(score)
                if champion is None or score > champion[0]:
                    champion = score, projection, evaluation.forest, seed
            advance(len(seeds), len(seeds))
        assert champion is not None
        summary = summarise(outcomes)
        tested = part(clips, "classification", "test")
        groups = dict(zip(tested["clip_id"], tested["group"], strict=True))
        metrics = _record(workspace, params, facts, pair, outcomes, summary, groups, run)
        run.log_metrics(over_seeds("valid_macro_f1", "mean", validated))
        run.log_metrics({"valid_macro_f1/best": champion[0]})
        for seed, score in zip(seeds, validated, strict=True):
            run.log_metrics({"valid_macro_f1_by_seed/mean": score}, step=seed)
        score, projection, forest, seed = champion
        classifier = ModalityAgnosticClassifier(
            projection,
            forest,
            networks(params, audio, image),
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
        features = project(projection, rows)
        equip(context, classifier, features, rows)
        told = measure_judge(classifier, features, rows, params.classify.bootstrap, params.seed)
        _record_judge(workspace, told, run)
        classifier.save(workspace.classifier)
        card = classifier_card(workspace.classifier, known(workspace, pair, results=True))
        write_text(workspace.classifier / CARD_FILE, card)
        if params.tracking.register_models:
            evidence = validation_evidence(classifier, rows["valid"], facts)
            register_classifier(workspace.classifier, classifier, run, evidence)
    return summary


def _record(
    workspace: Workspace,
    params: Params,
    facts: Mapping[str, Any],
    pair: str,
    outcomes: list[Outcome],
    summary: pd.DataFrame,
    groups: Mapping[str, str],
    run: StageRun,
) -> dict[str, float]:
    """Write and log the results with their uncertainty; `groups` names each test clip's recording.
    Return the mean scores by `system/regime/target`."""
    predictions = pd.concat(
        [
            o.predictions.assign(system=o.system, regime=o.regime, target=o.target, seed=o.seed)
            for o in outcomes
        ],
        ignore_index=True,
    )
    folder = workspace.classification
    write_parquet(folder / "predictions.parquet", predictions)
    classes = facts["classes"]
    how = Resampling(replicates=params.classify.bootstrap, seed=params.seed)
    ends = intervals(predictions, classes, groups, how)
    shares = zero_shot_shares(predictions, classes, groups, how)
    tests = comparisons(predictions, classes, groups, how)
    plain = ("system", "regime", "target", "seed", "macro_f1", "train_rows", "train_rows_of_target")
    told = {
        "dataset": facts["name"],
        "pairing": facts["pairing"],
        "pair": pair,
        "classes": classes,
        "trees": params.classify.trees,
        "max_depth": params.classify.max_depth,
        "min_leaf": params.classify.min_leaf,
        "max_features": params.classify.max_features,
        "summary": summary.to_dict("records"),
        "intervals": ends,
        "comparisons": tests,
        "zero_shot_share": shares,
        "outcomes": [{name: getattr(o, name) for name in plain} for o in outcomes],
    }
    write_json(folder / "results.json", told)
    metrics = {
        f"{row['system']}/{row['regime']}/{row['target']}": row["mean"]
        for row in summary.to_dict("records")
    }
    headline = {
        f"zero_shot_share/{target}": one["share"]
        for target, one in shares.items()
        if one["share"] is not None
    }
    write_json(folder / "metrics.json", _nested(metrics | headline))
    named, numbers = of_classification(told)
    # the pair and its encoders are known to the run already
    run.log_params(named, headline=True)
    run.log_metrics(numbers)
    run.log_table(pd.DataFrame(tests), "comparisons")
    for o in outcomes:
        name = metric_name("macro_f1_by_seed", o.system, o.regime, o.target)
        run.log_metrics({name: o.macro_f1}, step=o.seed)
    run.log_table(summary, "summary")
    run.log_file(folder / "results.json")
    run.log_figure(scores_figure(summary), "scores.png")
    for target in MODALITIES:
        figure = confusion_figure(predictions, classes, "MMT", "zero-shot", target)
        run.log_figure(figure, f"confusion-zero-shot-{target}.png")
    return metrics


def _record_judge(workspace: Workspace, told: Mapping[str, Any], run: StageRun) -> None:
    write_json(workspace.judge, told)
    run.log_metrics(of_judge(told))
    run.log_file(workspace.judge)
    run.log_figure(reliability_figure(told), "reliability.png")


def networks(params: Params, audio: str, image: str) -> dict[Modality, Encoder]:
    """The encoders that a classifier is built with."""
    return {
        "audio": encoders.get(audio, precision=params.embed.precision),
        "image": encoders.get(image, precision=params.embed.precision),
    }


def validation_evidence(
    classifier: ModalityAgnosticClassifier,
    valid: Mapping[Modality, Rows],
    facts: Mapping[str, Any],
) -> Evidence:
    """The classifier's answers to the validation rows of both modalities."""
    rows = [
        one.clips[["clip_id", "group"]].assign(
            modality=modality,
            truth=one.clips["instrument"],
            predicted=classifier.forest.predict(
                classifier.projection.project(modality, one.matrix)
            ),
        )
        for modality, one in valid.items()
    ]
    context = {
        "dataset": facts["name"],
        "pairing": facts["pairing"],
        "classes": list(facts["classes"]),
    }
    return Evidence("macro F1", context, pd.concat(rows, ignore_index=True))


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
