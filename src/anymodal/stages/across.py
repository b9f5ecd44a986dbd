"""Stage `across`: how much of the scores rests on knowing the sources that the test rows are from.

The protocols are those of `anymodal.across`; `within` uses the translations of stage `translate`,
the others train their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd

from anymodal.across import PROTOCOLS, Plan, Protocol, answer, plan
from anymodal.across_scores import by_source, differences, scores
from anymodal.classification import LabelledFeatures
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.mixing import Forests
from anymodal.params import Params
from anymodal.projection import load_projection
from anymodal.projection.base import Projection
from anymodal.projection.pca import fit_pca
from anymodal.report.across_figure import across_figure
from anymodal.resampling import Resampling
from anymodal.run_metrics import of_across
from anymodal.stages.base import (
    Advance,
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
from anymodal.stages.features import project
from anymodal.stages.select import selected_pair
from anymodal.stages.trainings import trained
from anymodal.stages.translation_data import TranslationData
from anymodal.storage import write_json, write_parquet
from anymodal.workspace import pair_name

COLUMNS = (
    "protocol", "target", "system", "regime", "seed", "fold", "clip_id", "truth", "predicted",
)  # fmt: skip


def across(context: Context) -> dict[str, Any]:
    """Run the stage; return what `across.json` holds.

    Every translation is kept as it is done, so a killed run goes on with the next one.
    """
    workspace, params = context.workspace, context.params
    facts = dataset_facts(workspace)
    audio, image = selected_pair(workspace, params)
    pair = pair_name(audio, image)
    clips = part(drawn_clips(workspace), "classification")
    told: dict[str, Any] = {
        "dataset": facts["name"],
        "pairing": facts["pairing"],
        "pair": pair,
        "classes": facts["classes"],
        "seeds": _seeds(params),
        "targets": {},
    }
    with pair_run(context, "across", audio, image, "classification", clips) as run:
        if params.across.enabled:
            work = _Work(context, audio, image)
            predictions = work.run()
            for target, one in work.plans.items():
                told["targets"][target] = work.told(one, predictions)
        else:
            predictions = pd.DataFrame(columns=list(COLUMNS))
            off = dict.fromkeys(PROTOCOLS, "switched off (across.enabled)")
            told["targets"] = {m: {"missing": off} for m in MODALITIES}
        write_parquet(workspace.across / "predictions.parquet", predictions)
        write_json(workspace.across / "across.json", told)
        run.log_metrics(of_across(told).metrics)
        for target, found in told["targets"].items():
            if found.get("scores"):
                figure = across_figure(found["scores"], found["chance"])
                run.log_figure(figure, f"across-{target}.png")
        run.log_file(workspace.across / "across.json")
        shutil.rmtree(workspace.scratch / "across", ignore_errors=True)
    return told


class _Work:
    """The rows of a pair of encoders, and what is done with them."""

    def __init__(self, context: Context, audio: str, image: str) -> None:
        self.context, self.params = context, context.params
        self.data = TranslationData.load(context, audio, image)
        clips = part(drawn_clips(context.workspace), "classification")
        self.rows: dict[Modality, Rows] = encoder_pair(context.workspace, clips, audio, image)
        self.seeds = seeds_of(self.params.seed, _seeds(self.params))
        parts = [rows.clips for rows in self.rows.values()]
        parts += [rows.clips for rows in (*self.data.train.values(), *self.data.valid.values())]
        self.clips = pd.concat(parts).drop_duplicates("clip_id").reset_index(drop=True)
        self.plans = {target: self._plan(target) for target in MODALITIES}
        self.folds: list[dict[str, Any]] = []

    def _plan(self, target: Modality) -> Plan:
        folds, seed = self.params.across.folds, self.params.seed
        made = plan(self.clips, target, folds, seed)
        for protocol in made.fold:
            for fold in made.folds(protocol) if protocol != "within" else ():
                if told := self.data.lacks(made.held_out(protocol, fold)):
                    return plan(self.clips, target, folds, seed, refused=told)
        return made

    def run(self) -> pd.DataFrame:
        """The answers of every target, protocol, fold and seed (see `COLUMNS`)."""
        turns = [
            (one, protocol, fold)
            for one in self.plans.values()
            for protocol in one.fold
            for fold in one.folds(protocol)
        ]
        found = [pd.DataFrame(columns=list(COLUMNS))]
        with self.context.progress(f"across {self.data.pair}") as advance:
            for place, (one, protocol, fold) in enumerate(turns):
                # with many rows, one fold's are held at a time
                for done, answers in enumerate(self._fold(one, protocol, fold)):
                    advance(place * len(self.seeds) + done + 1, len(turns) * len(self.seeds))
                    found.append(answers)
        return pd.concat([one for one in found if len(one)] or found, ignore_index=True)

    def _fold(self, one: Plan, protocol: Protocol, fold: int) -> Iterator[pd.DataFrame]:
        """The answers of one fold, seed by seed."""
        workspace, used = self.context.workspace, versions(self.rows)
        pair, settings = self.data.pair, self.params.translate
        if protocol == "within":
            data, inputs = self.data, ""
            reduction: Projection = load_projection(workspace.pca(pair), used)
        else:
            data = self.data.without(one.held_out(protocol, fold))
            inputs = data.fingerprint(settings)
            reduction = fit_pca(
                data.train["audio"].matrix,
                data.train["image"].matrix,
                settings.dim,
                data.origin(self.params.seed),
            )
        self.folds.append(self._sizes(one, protocol, fold, data))
        reduced = self._projected(reduction)
        for seed in self.seeds:
            folder = workspace.translation(pair, seed)
            if protocol != "within":
                folder = workspace.scratch / "across" / inputs[:16] / f"seed-{seed}"
                checkpoint = folder.with_name(f"seed-{seed}.checkpoint")
                trained(data, settings, seed, folder, checkpoint, _quietly, inputs)
            translated = self._projected(load_projection(folder, used))
            answers = answer(one, protocol, fold, translated, reduced, self._forests(seed))
            answers = answers.assign(protocol=protocol, target=one.target, seed=seed, fold=fold)
            yield answers[list(COLUMNS)]

    def _projected(self, projection: Projection) -> Mapping[Modality, LabelledFeatures]:
        return project(projection, {"all": self.rows})["all"]

    def _forests(self, seed: int) -> Forests:
        asked = self.params.classify
        return Forests(asked.trees, asked.max_depth, seed, asked.min_leaf, asked.max_features)

    def _sizes(
        self, one: Plan, protocol: Protocol, fold: int, data: TranslationData
    ) -> dict[str, Any]:
        """What a fold tests and is trained on."""
        held = one.held_out(protocol, fold)
        asked = one.clips[one.clips["clip_id"].isin(one.asked(protocol, fold))]
        return {
            "target": one.target,
            "protocol": protocol,
            "fold": fold,
            "sources": {str(k): int(n) for k, n in asked["source"].value_counts().items()},
            "test_rows": len(asked),
            "train_rows": {
                m: int((~self.rows[m].clips["clip_id"].isin(held)).sum()) for m in MODALITIES
            },
            "translation_rows": {m: len(data.train[m].clips) for m in MODALITIES},
        }

    def told(self, one: Plan, predictions: pd.DataFrame) -> dict[str, Any]:
        """All about one target."""
        own = predictions[predictions["target"] == one.target]
        tested = one.clips[one.tested]
        groups = dict(zip(tested["clip_id"], tested["group"], strict=True))
        sources = dict(zip(tested["clip_id"], tested["source"], strict=True))
        how = Resampling(replicates=self.params.classify.bootstrap, seed=self.params.seed)
        return {
            "missing": one.missing,
            "test_rows": len(tested),
            "groups": len(set(groups.values())),
            "sources": len(set(sources.values())),
            "classes": one.classes,
            "chance": 1 / len(one.classes) if one.classes else None,
            "left_out": [vars(left) for left in one.left_out],
            "folds": [
                {name: value for name, value in fold.items() if name != "target"}
                for fold in self.folds
                if fold["target"] == one.target
            ],
            "scores": scores(own, one.classes, groups, how),
            "by_source": by_source(own, sources),
            "differences": differences(own, one.classes, groups, how),
        }


def _seeds(params: Params) -> int:
    return min(params.across.seeds, params.translate.seeds)


@contextmanager
def _quietly() -> Iterator[Advance]:
    yield lambda done, total: None
