"""Tuning the random forest.

A trial's score is macro F1 on the validation rows of the classification subset, mean of zero-shot
and all data on both modalities and of the seeds, on the translations in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anymodal.classifier.fit import attach_calibration
from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.config.params import ClassifyParams
from anymodal.core.fingerprint import fingerprint
from anymodal.core.modality import MODALITIES, OTHER, Modality
from anymodal.evaluation.forests import ForestSettings, fit_forest
from anymodal.evaluation.resampling import Score
from anymodal.evaluation.statistics import macro_f1_score
from anymodal.pipeline.context import Context
from anymodal.pipeline.features import Features, project
from anymodal.pipeline.stages.classify import networks
from anymodal.projection.training_data import TrainingData
from anymodal.tracking.promotion import Decision, classifier_scores, mean_score_of
from anymodal.tracking.registry import register_classifier
from anymodal.tracking.runs import StageRun
from anymodal.tuning.search_space import distributions
from anymodal.tuning.tasks import Answers, Report, Task
from anymodal.tuning.translation import TranslationTask


class ForestTask(Task[ClassifyParams]):
    """The random forest's parameters, on translations of the parameters in use."""

    what, section = "forest", "classify"
    score, step = "macro F1 on validation rows", "seed"

    def __init__(self, context: Context, data: TrainingData) -> None:
        self.context, self.data = context, data
        params = context.params
        self.current = params.classify
        self.space = distributions(params.tune.forest, self.current)
        self.steps = params.tune.seeds
        self.translations = TranslationTask(context, data)
        self.pair = (data.audio, data.image)
        self.rows = {
            split: context.rows(self.pair, "classification", split) for split in ("train", "valid")
        }
        self.classes = context.dataset.classes
        self._features: dict[int, Features] = {}

    @property
    def depends_on(self) -> Mapping[str, Any]:
        params = self.context.params
        rows = [
            (each.version, each.clips[["clip_id", "instrument"]].to_numpy(), each.matrix)
            for split in self.rows.values()
            for each in split.values()
        ]
        fixed = self.current.model_dump(include={"trees", "max_depth", "min_leaf", "max_features"})
        return {
            "rows": fingerprint(self.data.fingerprint(params.translate), rows),
            "fixed": sorted((name, v) for name, v in fixed.items() if name not in self.space),
            "score": [self.score, self.classes, params.tune.seeds, params.seed],
        }

    def relevant(self, name: str, chosen: Mapping[str, Any]) -> bool:
        return True

    def try_out(
        self, settings: ClassifyParams, seeds: Sequence[int], report: Report
    ) -> list[float]:
        scores: list[float] = []
        for step, seed in enumerate(seeds, 1):
            score, _ = self.rate([self.answers(settings, seed)])
            scores.append(score.value)
            if step < len(seeds):
                report(step, float(np.mean(scores)))
        return scores

    def answers(self, settings: ClassifyParams, seed: int) -> Answers:
        train, valid = (self._of(seed)[split] for split in ("train", "valid"))
        forests = ForestSettings.of(settings)
        both = fit_forest([train[m] for m in MODALITIES], forests, seed)
        answers: Answers = {}
        for target in MODALITIES:
            rows = valid[target].features
            alone = fit_forest([train[OTHER[target]]], forests, seed)
            answers[f"{target} zero-shot"] = alone.predict(rows)
            answers[f"{target} all"] = both.predict(rows)
        return answers

    def rate(self, answers: Sequence[Answers]) -> tuple[Score, np.ndarray]:
        parts, kinds, groups = [], [], []
        for name in answers[0]:
            target: Modality = "audio" if name.startswith("audio") else "image"
            clips = self.rows["valid"][target].clips
            predicted = np.stack([each[name] for each in answers])
            parts.append(macro_f1_score(clips["instrument"].to_numpy(str), predicted, self.classes))
            kinds.append(target)
            groups.append(clips["group"].to_numpy(str))
        return mean_score_of(parts, kinds), np.concatenate(groups)

    def register(
        self, settings: ClassifyParams, seed: int, decision: Decision, run: StageRun, study: str
    ) -> str:
        context, params = self.context, self.context.params
        features = self._of(seed)
        train = features["train"]
        forest = fit_forest([train[m] for m in MODALITIES], ForestSettings.of(settings), seed)
        classifier = ModalityAgnosticClassifier(
            self.translations.trained(params.translate, seed),
            forest,
            networks(params, *self.pair),
            {
                "dataset": context.dataset.name,
                "pairing": context.dataset.pairing,
                "pair": self.data.pair,
                "seed": seed,
                "train_rows": {m: len(self.rows["train"][m].clips) for m in MODALITIES},
                "tuned_by": study,
            },
        )
        scores = classifier_scores(classifier, self.rows["valid"], context.dataset)
        classifier.facts["validation_macro_f1"] = scores.score.value
        more = {s: context.rows(self.pair, "translation", s) for s in ("train", "valid")}
        attach_calibration(classifier, features, self.rows, more, params.classify, params.seed)
        folder = context.workspace.scratch / "tune" / "classifier"
        classifier.save(folder)
        return register_classifier(folder, classifier, run, scores, decision)

    def _of(self, seed: int) -> Features:
        if seed not in self._features:
            projection = self.translations.trained(self.context.params.translate, seed)
            self._features[seed] = project(projection, self.rows)
        return self._features[seed]
