"""Stage `cross_source`: how much of the scores depends on knowing the sources of the test rows.

Protocol `within` uses the translations of stage `translate`, the others train their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pandas as pd

from anymodal.core.modality import MODALITIES, Modality
from anymodal.core.storage import write_parquet
from anymodal.embeddings.rows import versions
from anymodal.evaluation.cross_source import PROTOCOLS, Plan, Protocol, answer, plan
from anymodal.evaluation.cross_source_scores import (
    CrossSourceResult,
    FoldSizes,
    TargetResult,
    by_source,
    differences,
    scores,
)
from anymodal.evaluation.forests import ForestSettings
from anymodal.pipeline.context import Context, silent
from anymodal.pipeline.features import labelled
from anymodal.projection import load_projection
from anymodal.projection.pca import fit_pca
from anymodal.projection.trainings import train_or_load
from anymodal.report.cross_source_figure import cross_source_figure
from anymodal.tracking.metrics import of_cross_source

COLUMNS = (
    "protocol", "target", "system", "regime", "seed", "fold", "clip_id", "truth", "predicted",
)  # fmt: skip


def cross_source(context: Context) -> CrossSourceResult:
    """Run the stage. Every translation is kept, so a killed run resumes with the next one."""
    workspace, params = context.workspace, context.params.cross_source
    pair = context.selected_pair
    seeds = context.seeds(min(params.seeds, context.params.translate.seeds))
    with context.pair_run("cross_source", pair, "classification") as run:
        if params.enabled:
            validation = _Validation(context, pair, seeds)
            predictions = validation.run()
            targets = {
                target: validation.result(each, predictions)
                for target, each in validation.plans.items()
            }
        else:
            predictions = pd.DataFrame(columns=list(COLUMNS))
            off = dict.fromkeys(PROTOCOLS, "switched off (cross_source.enabled)")
            targets = {target: TargetResult(missing=off) for target in MODALITIES}
        result = CrossSourceResult(
            **context.measured(pair),
            classes=context.dataset.classes,
            seeds=len(seeds),
            targets=targets,
        )
        write_parquet(workspace.cross_source_predictions, predictions)
        result.write(workspace.cross_source)
        run.log_metrics(of_cross_source(result).metrics)
        for target, measured in targets.items():
            if measured.scores:
                run.log_figure(cross_source_figure(measured), f"cross_source-{target}.png")
        run.log_file(workspace.cross_source)
        shutil.rmtree(workspace.scratch / "cross_source", ignore_errors=True)
    return result


class _Validation:
    """Cross-validation of one pair of encoders."""

    def __init__(self, context: Context, pair: tuple[str, str], seeds: list[int]) -> None:
        self.context, self.pair, self.seeds = context, pair, seeds
        self.data = context.training_data(pair)
        self.rows = context.rows(pair, "classification")
        parts = [rows.clips for rows in self.rows.values()]
        parts += [rows.clips for rows in (*self.data.train.values(), *self.data.valid.values())]
        self.clips = pd.concat(parts).drop_duplicates("clip_id").reset_index(drop=True)
        self.plans: dict[Modality, Plan] = {target: self._plan(target) for target in MODALITIES}
        self.folds: list[tuple[Modality, FoldSizes]] = []

    def _plan(self, target: Modality) -> Plan:
        folds, seed = self.context.params.cross_source.folds, self.context.params.seed
        first = plan(self.clips, target, folds, seed)
        for protocol in first.fold:
            for fold in first.folds(protocol) if protocol != "within" else ():
                if reason := self.data.shortage(first.held_out(protocol, fold)):
                    return plan(self.clips, target, folds, seed, refused=reason)
        return first

    def run(self) -> pd.DataFrame:
        """The answers of every target, protocol, fold and seed (see `COLUMNS`)."""
        turns = [
            (each, protocol, fold)
            for each in self.plans.values()
            for protocol in each.fold
            for fold in each.folds(protocol)
        ]
        # with many rows, one fold's are held at a time
        tables = [
            answers
            for turn in self.context.track(f"cross_source {self.data.pair}", turns)
            for answers in self._fold(*turn)
        ]
        if not tables:
            return pd.DataFrame(columns=list(COLUMNS))
        return pd.concat(tables, ignore_index=True)

    def _fold(self, each: Plan, protocol: Protocol, fold: int) -> Iterator[pd.DataFrame]:
        """The answers of one fold, seed by seed."""
        pair, data, inputs = self.pair, self.data, ""
        settings, held = self.context.params.translate, each.held_out(protocol, fold)
        if protocol == "within":
            reduction = self.context.projection(pair, self.rows)
        else:
            data = self.data.without(held)
            inputs = data.fingerprint(settings)
            audio, image = (data.train[m].matrix for m in MODALITIES)
            origin = data.origin(self.context.params.seed)
            reduction = fit_pca(audio, image, settings.dim, origin)
        tested = each.clips[each.clips["clip_id"].isin(each.tested_ids(protocol, fold))]
        sizes = FoldSizes(
            protocol=protocol,
            fold=fold,
            sources={str(k): int(n) for k, n in tested["source"].value_counts().items()},
            test_rows=len(tested),
            train_rows={
                m: int((~self.rows[m].clips["clip_id"].isin(held)).sum()) for m in MODALITIES
            },
            translation_rows={m: len(data.train[m].clips) for m in MODALITIES},
        )
        self.folds.append((each.target, sizes))
        reduced = labelled(reduction, self.rows)
        forest = ForestSettings.of(self.context.params.classify)
        for seed in self.seeds:
            if protocol == "within":
                projection = self.context.projection(pair, self.rows, seed)
            else:
                scratch = self.context.workspace.scratch / "cross_source" / inputs[:16]
                folder, checkpoint = scratch / f"seed-{seed}", scratch / f"seed-{seed}.checkpoint"
                train_or_load(data, settings, seed, folder, checkpoint, silent, inputs)
                projection = load_projection(folder, versions(self.rows))
            translated = labelled(projection, self.rows)
            answers = answer(each, protocol, fold, translated, reduced, forest, seed)
            answers = answers.assign(protocol=protocol, target=each.target, seed=seed, fold=fold)
            yield answers[list(COLUMNS)]

    def result(self, each: Plan, predictions: pd.DataFrame) -> TargetResult:
        """All that was measured of one target modality."""
        own = predictions[predictions["target"] == each.target]
        tested = each.clips[each.tested]
        groups = dict(zip(tested["clip_id"], tested["group"], strict=True))
        sources = dict(zip(tested["clip_id"], tested["source"], strict=True))
        how = self.context.resampling
        return TargetResult(
            missing=each.missing,
            test_rows=len(tested),
            groups=len(set(groups.values())),
            sources=len(set(sources.values())),
            classes=tuple(each.classes),
            chance=1 / len(each.classes) if each.classes else None,
            left_out=each.left_out,
            folds=tuple(sizes for target, sizes in self.folds if target == each.target),
            scores=scores(own, each.classes, groups, how),
            by_source=by_source(own, sources),
            differences=differences(own, each.classes, groups, how),
        )
