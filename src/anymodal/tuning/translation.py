"""Tuning the translation.

A trial's score is NDCG among the validation rows of the translation subset, mean of both ways and
of the seeds. Graded by the clips' labels, it is there for clip-paired data too, where few clips
have an instrument, and unlike the loss it can be compared between losses and margins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from anymodal.champion import Decision, together
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.params import TranslateParams
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.projection.training import Divergence
from anymodal.projection.translation import Translation
from anymodal.registry import TRANSLATION, crown, evidence_path, register_translation
from anymodal.resampling import Score
from anymodal.search_space import distributions
from anymodal.stages.base import Context, dataset_facts, versions
from anymodal.stages.trainings import finished
from anymodal.stages.translation_data import TranslationData
from anymodal.stages.tune_tasks import Answers, Report, Task, Unfit
from anymodal.statistics import mean_score
from anymodal.tracking import StageRun


class TranslationTask(Task[TranslateParams]):
    """The translation's parameters."""

    what, section, step = "translation", "translate", "epoch"

    def __init__(self, context: Context, data: TranslationData) -> None:
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
            "rows": self.data.fingerprint(),
            "fixed": fixed,
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
            scores.append(self.data.validate(translation, self.context.params.retrieve).mean)
        return scores

    def answers(self, settings: TranslateParams, seed: int) -> Answers:
        scores = self.data.validate(self.trained(settings, seed), self.context.params.retrieve)
        return {"audio": scores.audio_queries, "image": scores.image_queries}

    def rate(self, answers: Sequence[Answers]) -> tuple[Score, np.ndarray]:
        parts = [mean_score(np.stack([one[m] for one in answers])) for m in MODALITIES]
        groups = [self.data.valid[m].clips["group"].to_numpy(str) for m in MODALITIES]
        return together(parts, MODALITIES), np.concatenate(groups)

    def register(
        self, settings: TranslateParams, seed: int, decision: Decision, run: StageRun, study: str
    ) -> str:
        params = self.context.params
        projection = self.trained(settings, seed)
        dataset = dataset_facts(self.context.workspace)["name"]
        evidence = self.data.evidence(projection, dataset, params)
        run.log_json(evidence.as_dict(), evidence_path(TRANSLATION))
        tags = {
            "pair": self.data.pair,
            "pairing": self.data.pairing,
            "dataset": dataset,
            "seed": str(seed),
            "tuned_by": study,
        }
        number = register_translation(self._folder(settings, seed), tags, params, run)
        crown(TRANSLATION, number, evidence, params, run, decision)
        return number

    def trained(self, settings: TranslateParams, seed: int) -> Projection:
        """The translation that `seed` gives: the pipeline's, one kept from before, or a new one."""
        inputs = self.data.fingerprint(settings)
        own = self.context.workspace.translation(self.data.pair, seed)
        used = versions(self.data.train)
        if finished(own, inputs) is not None:
            return load_projection(own, used)
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
        # named after its content: the trial that takes a killed one's place finds it
        told = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:16]
        checkpoint = self._scratch / "checkpoints" / f"{self.data.pair}-{told}-{seed}"
        try:
            return self.data.fit(settings, seed, checkpoint, on_epoch, measure).translation
        except (Divergence, torch.OutOfMemoryError) as error:
            checkpoint.unlink(missing_ok=True)
            raise Unfit(str(error)) from error
        except optuna.TrialPruned:
            checkpoint.unlink(missing_ok=True)
            raise

    def _measure(self, translation: Translation) -> dict[str, float]:
        scores = self.data.validate(translation, self.context.params.retrieve, self._sample)
        return {"ndcg": scores.mean}

    @cached_property
    def _sample(self) -> dict[Modality, np.ndarray]:
        """Rows that score an epoch: all, or the same random ones every time."""
        random = np.random.default_rng(self.context.params.seed)
        most = self.context.params.tune.score_rows
        counts = {m: len(self.data.valid[m].matrix) for m in MODALITIES}
        return {m: np.sort(random.permutation(n)[:most]) for m, n in counts.items()}
