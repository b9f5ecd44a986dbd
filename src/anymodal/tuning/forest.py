"""Tuning the random forest.

A trial's score is macro F1 on the validation rows of the classification subset, mean of zero-shot
and all data on both modalities and of the seeds, with features translated by the parameters in use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from anymodal.champion import Decision, together
from anymodal.classification import LabelledFeatures, fit_forest
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.model import ModalityAgnosticClassifier
from anymodal.params import ClassifyParams
from anymodal.registry import register_classifier
from anymodal.resampling import Score
from anymodal.search_space import distributions
from anymodal.stages.base import Context, dataset_facts, drawn_clips, encoder_pair, part
from anymodal.stages.classify import networks, validation_evidence
from anymodal.stages.features import Features, project
from anymodal.stages.judging import equip
from anymodal.stages.translation_data import TranslationData
from anymodal.stages.tune_tasks import Answers, Report, Task
from anymodal.stages.tune_translation import TranslationTask
from anymodal.statistics import macro_f1_score
from anymodal.tracking import StageRun


class ForestTask(Task[ClassifyParams]):
    """The random forest's parameters, on translations of the parameters in use."""

    what, section = "forest", "classify"
    score, step = "macro F1 on validation rows", "seed"

    def __init__(self, context: Context, data: TranslationData) -> None:
        self.context, self.data = context, data
        params = context.params
        self.current = params.classify
        self.space = distributions(params.tune.forest, self.current)
        self.steps = params.tune.seeds
        self.translations = TranslationTask(context, data)
        clips = drawn_clips(context.workspace)
        self.rows = {
            split: encoder_pair(
                context.workspace, part(clips, "classification", split), data.audio, data.image
            )
            for split in ("train", "valid")
        }
        self.classes = list(dataset_facts(context.workspace)["classes"])
        self._features: dict[int, Features] = {}

    @property
    def depends_on(self) -> Mapping[str, Any]:
        params = self.context.params
        rows = hashlib.sha256(self.data.fingerprint(params.translate).encode())
        for one in (rows for split in self.rows.values() for rows in split.values()):
            rows.update(one.version.encode())
            rows.update("\n".join(one.clips["clip_id"] + one.clips["instrument"]).encode())
            rows.update(np.ascontiguousarray(one.matrix).data)
        fixed = self.current.model_dump(include={"trees", "max_depth", "min_leaf", "max_features"})
        return {
            "rows": rows.hexdigest(),
            "fixed": {name: value for name, value in fixed.items() if name not in self.space},
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
        both = _fit([train[m] for m in MODALITIES], settings, seed)
        found: Answers = {}
        for target, other in zip(MODALITIES, reversed(MODALITIES), strict=True):
            rows = valid[target].features
            found[f"{target} zero-shot"] = _fit([train[other]], settings, seed).predict(rows)
            found[f"{target} all"] = both.predict(rows)
        return found

    def rate(self, answers: Sequence[Answers]) -> tuple[Score, np.ndarray]:
        parts, kinds, groups = [], [], []
        for name in answers[0]:
            target: Modality = "audio" if name.startswith("audio") else "image"
            clips = self.rows["valid"][target].clips
            predicted = np.stack([one[name] for one in answers])
            parts.append(macro_f1_score(clips["instrument"].to_numpy(str), predicted, self.classes))
            kinds.append(target)
            groups.append(clips["group"].to_numpy(str))
        return together(parts, kinds), np.concatenate(groups)

    def register(
        self, settings: ClassifyParams, seed: int, decision: Decision, run: StageRun, study: str
    ) -> str:
        context, params = self.context, self.context.params
        facts = dataset_facts(context.workspace)
        features = self._of(seed)
        train = features["train"]
        forest = _fit([train[m] for m in MODALITIES], settings, seed)
        classifier = ModalityAgnosticClassifier(
            self.translations.trained(params.translate, seed),
            forest,
            networks(params, self.data.audio, self.data.image),
            {
                "dataset": facts["name"],
                "pairing": facts["pairing"],
                "pair": self.data.pair,
                "seed": seed,
                "train_rows": {m: len(self.rows["train"][m].clips) for m in MODALITIES},
                "tuned_by": study,
            },
        )
        evidence = validation_evidence(classifier, self.rows["valid"], facts)
        classifier.facts["validation_macro_f1"] = evidence.score.value
        equip(context, classifier, features, self.rows)
        folder = context.workspace.scratch / "tune" / "classifier"
        classifier.save(folder)
        return register_classifier(folder, classifier, run, evidence, decision)

    def _of(self, seed: int) -> Features:
        if seed not in self._features:
            projection = self.translations.trained(self.context.params.translate, seed)
            self._features[seed] = project(projection, self.rows)
        return self._features[seed]


def _fit(
    parts: Sequence[LabelledFeatures], settings: ClassifyParams, seed: int
) -> RandomForestClassifier:
    return fit_forest(
        parts,
        settings.trees,
        settings.max_depth,
        seed,
        min_leaf=settings.min_leaf,
        max_features=settings.max_features,
    )
