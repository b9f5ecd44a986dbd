"""Tuning the translation.

A trial's score is NDCG among the validation rows of the translation subset, mean of both directions
and of the seeds. Unlike the loss, it can be compared between losses and margins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from anymodal.config.params import TranslateParams
from anymodal.core.fingerprint import fingerprint
from anymodal.core.modality import MODALITIES, Modality
from anymodal.embeddings.rows import versions
from anymodal.evaluation.resampling import Score
from anymodal.evaluation.retrieval import RetrievalScores, retrieve_rows
from anymodal.evaluation.statistics import mean_score
from anymodal.pipeline.context import Context
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.projection.training import Divergence
from anymodal.projection.training_data import TrainingData
from anymodal.projection.trainings import finished
from anymodal.projection.translation import Translation
from anymodal.tracking.promotion import Decision, mean_score_of, translation_scores
from anymodal.tracking.registered_models import TRANSLATION
from anymodal.tracking.registry import promote, register_translation, validation_scores_path
from anymodal.tracking.runs import StageRun
from anymodal.tuning.search_space import distributions
from anymodal.tuning.tasks import Answers, Report, Task, Unfit


class TranslationTask(Task[TranslateParams]):
    """The translation's parameters."""

    what, section, step = "translation", "translate", "epoch"

    def __init__(self, context: Context, data: TrainingData) -> None:
        self.context, self.data = context, data
        params = context.params
        self.current = params.translate
        self.space = distributions(params.tune.translation, self.current)
        self.steps = self.current.max_epochs
        self.score = f"NDCG@{params.retrieve.top_k} on validation rows"

    @property
    def depends_on(self) -> Mapping[str, Any]:
        params = self.context.params
        fixed = self.current.model_dump(exclude={*self.space, "seeds", "device"})
        return {
            "rows": self.data.rows_fingerprint,
            "fixed": sorted(fixed.items()),
            "score": [self.score, params.tune.seeds, params.seed],
        }

    def relevant(self, name: str, chosen: Mapping[str, Any]) -> bool:
        if name in ("margin", "temperature"):
            loss = chosen.get("loss", self.current.loss)
            return loss == ("hinge" if name == "margin" else "infonce")
        # a linear map has no hidden layer
        hidden = name in ("hidden", "activation", "dropout")
        return not hidden or chosen.get("depth", self.current.depth) > 1

    def try_out(
        self, settings: TranslateParams, seeds: Sequence[int], report: Report
    ) -> list[float]:
        scores: list[float] = []
        for seed in seeds:
            first = not scores
            translation = self._fit(
                settings,
                seed,
                # later seeds run through: a trial that passed the first is worth its mean
                (lambda entry: report(int(entry["epoch"]), entry["ndcg"])) if first else None,
                self._measure if first else None,
            )
            scores.append(self._retrieve(translation).directions.mean)
        return scores

    def answers(self, settings: TranslateParams, seed: int) -> Answers:
        scores = self._retrieve(self.trained(settings, seed))
        return {"audio": scores.audio_queries, "image": scores.image_queries}

    def rate(self, answers: Sequence[Answers]) -> tuple[Score, np.ndarray]:
        parts = [mean_score(np.stack([each[m] for each in answers])) for m in MODALITIES]
        groups = [self.data.valid[m].clips["group"].to_numpy(str) for m in MODALITIES]
        return mean_score_of(parts, MODALITIES), np.concatenate(groups)

    def register(
        self, settings: TranslateParams, seed: int, decision: Decision, run: StageRun, study: str
    ) -> str:
        params = self.context.params
        projection = self.trained(settings, seed)
        dataset = self.context.dataset.name
        scores = translation_scores(projection, self.data, dataset, params.retrieve)
        run.log_json(scores.as_dict(), validation_scores_path(TRANSLATION))
        tags = {
            "pair": self.data.pair,
            "pairing": self.data.pairing,
            "dataset": dataset,
            "seed": str(seed),
            "tuned_by": study,
        }
        folder = self._folder(settings, seed)
        number = register_translation(folder, tags, params.tracking)
        promote(TRANSLATION, number, scores, params.tracking, run, decision)
        return number

    def trained(self, settings: TranslateParams, seed: int) -> Projection:
        """The translation of `seed`: the pipeline's, one from an earlier trial, or a new one."""
        inputs = self.data.fingerprint(settings)
        pipelines = self.context.workspace.translation(self.data.pair, seed)
        used = versions(self.data.train)
        if finished(pipelines, inputs) is not None:
            return load_projection(pipelines, used)
        folder = self._folder(settings, seed)
        if not (folder / "projection.json").is_file():
            self._fit(settings, seed, None, None).save(folder)
        return load_projection(folder, used)

    def _folder(self, settings: TranslateParams, seed: int) -> Path:
        inputs = self.data.fingerprint(settings)
        return self._scratch / "translations" / inputs[:16] / f"seed-{seed}"

    @property
    def _scratch(self) -> Path:
        return self.context.workspace.scratch / "tune"

    def _fit(
        self,
        settings: TranslateParams,
        seed: int,
        on_epoch: Callable[[dict[str, float]], None] | None,
        measure: Callable[[Translation], Mapping[str, float]] | None,
    ) -> Translation:
        # named after its content, so that a trial that is run again finds it
        name = f"{self.data.pair}-{fingerprint(settings)[:16]}-{seed}"
        checkpoint = self._scratch / "checkpoints" / name
        try:
            return self.data.fit(settings, seed, checkpoint, on_epoch, measure).translation
        except (Divergence, torch.OutOfMemoryError) as error:
            checkpoint.unlink(missing_ok=True)
            raise Unfit(str(error)) from error
        except optuna.TrialPruned:
            checkpoint.unlink(missing_ok=True)
            raise

    def _measure(self, translation: Translation) -> dict[str, float]:
        return {"ndcg": self._retrieve(translation, self._sample).directions.mean}

    def _retrieve(
        self, projection: Projection, chosen: Mapping[Modality, np.ndarray] | None = None
    ) -> RetrievalScores:
        params = self.context.params.retrieve
        return retrieve_rows(projection, self.data.valid, params.top_k, params.chunk, chosen)

    @cached_property
    def _sample(self) -> dict[Modality, np.ndarray]:
        """Rows that score an epoch: all, or a fixed random sample."""
        rng = np.random.default_rng(self.context.params.seed)
        most = self.context.params.tune.score_rows
        counts = {m: len(self.data.valid[m].matrix) for m in MODALITIES}
        return {m: np.sort(rng.permutation(n)[:most]) for m, n in counts.items()}
