"""Stage `mixing`: what labels of the target modality add, bit by bit (paper, Fig. 3)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from anymodal.encoders.base import MODALITIES, Modality
from anymodal.mixing import Fit, Forests, Splits, fit_all, plan
from anymodal.projection import load_projection
from anymodal.stages.base import (
    Context,
    dataset_facts,
    drawn_clips,
    pair_run,
    part,
    seeds_of,
    versions,
)
from anymodal.stages.features import classification_rows, project
from anymodal.stages.select import selected_pair
from anymodal.storage import write_json, write_parquet
from anymodal.tracking import StageRun, metric_name
from anymodal.workspace import Workspace, pair_name

COLUMNS = ("system", "target", "samples", "draw", "macro_f1")


def mixing(context: Context) -> pd.DataFrame:
    """Run the stage; return the curve, one row a forest (see `COLUMNS`).

    Every forest's score is kept as it is done, so a killed run goes on with the next one.
    """
    workspace, params = context.workspace, context.params
    facts = dataset_facts(workspace)
    audio, image = selected_pair(workspace, params)
    pair = pair_name(audio, image)
    clips = part(drawn_clips(workspace), "classification")
    rows = classification_rows(workspace, clips, audio, image)
    used = versions(rows["train"])
    wanted = {name: rows[name] for name in ("train", "test")}
    reduced = project(load_projection(workspace.pca(pair), used), wanted)
    translated = [
        project(load_projection(workspace.translation(pair, seed), used), wanted)
        for seed in seeds_of(params.seed, params.classify.seeds)
    ]
    forests = Forests(
        params.classify.trees,
        params.classify.max_depth,
        params.seed,
        params.classify.min_leaf,
        params.classify.max_features,
        params.mixing.library,
    )
    available = {modality: len(wanted["train"][modality].clips) for modality in MODALITIES}
    fits = plan(params.mixing.points, params.mixing.draws, available)
    with pair_run(context, "mixing", audio, image, "classification", clips) as run:
        ledger = _Ledger(_ledger_path(workspace, translated, reduced, forests))
        known = ledger.read()
        scores = {one: known[one] for one in fits if one in known}
        todo = [one for one in fits if one not in scores]
        with context.progress(f"mixing {pair}") as advance:
            advance(len(scores), len(fits))
            for one, score in fit_all(todo, translated, reduced, forests, params.mixing.workers):
                ledger.add(one, score)
                scores[one] = score
                advance(len(scores), len(fits))
        curve = pd.DataFrame(
            [(*(getattr(one, name) for name in COLUMNS[:-1]), scores[one]) for one in fits],
            columns=list(COLUMNS),
        )
        _record(workspace, facts, pair, curve, available, run)
        ledger.path.unlink(missing_ok=True)
    return curve


def summarise_curve(curve: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation (n − 1), lowest and highest score of every point over its draws."""
    points = curve.groupby(["target", "system", "samples"], sort=True)["macro_f1"]
    summary = points.agg(["mean", "std", "min", "max", "size"]).rename(columns={"size": "draws"})
    return summary.fillna({"std": 0.0}).reset_index()


def _record(
    workspace: Workspace,
    facts: Mapping[str, Any],
    pair: str,
    curve: pd.DataFrame,
    available: Mapping[Modality, int],
    run: StageRun,
) -> None:
    summary = summarise_curve(curve)
    write_parquet(workspace.mixing / "curve.parquet", curve)
    write_json(
        workspace.mixing / "curve.json",
        {
            "dataset": facts["name"],
            "pairing": facts["pairing"],
            "pair": pair,
            "classes": facts["classes"],
            "train_rows": dict(available),
            "points": summary.to_dict("records"),
        },
    )
    for (system, target), rows in summary.groupby(["system", "target"]):
        values = dict(zip(rows["samples"].tolist(), rows["mean"].tolist(), strict=True))
        run.log_history(metric_name("macro_f1_by_rows", str(system), str(target)), values)
    run.log_table(summary, "curve")
    run.log_file(workspace.mixing / "curve.json")


class _Ledger:
    """Scores that are done, one line each: a line that a kill cut short is not counted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[Fit, float]:
        """What is done."""
        if not self.path.is_file():
            return {}
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self.path.write_text(whole, encoding="utf-8")
        done: dict[Fit, float] = {}
        for system, target, samples, draw, score in csv.reader(whole.splitlines()):
            fit = Fit(system, target, int(samples), int(draw))  # type: ignore[arg-type]
            done[fit] = float.fromhex(score)
        return done

    def add(self, one: Fit, score: float) -> None:
        """Note one score."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(
                [*(getattr(one, name) for name in COLUMNS[:-1]), float(score).hex()]
            )


def _ledger_path(
    workspace: Workspace, translated: Sequence[Splits], reduced: Splits, forests: Forests
) -> Path:
    """Where the scores of exactly these features and forests are noted."""
    total = hashlib.sha256(repr(sorted(asdict(forests).items())).encode())
    for features in (*translated, reduced):
        for split in features.values():
            for one in split.values():
                total.update(one.features.tobytes())
                total.update("\n".join([*one.instruments, *one.clip_ids]).encode())
    return workspace.scratch / "mixing" / f"{total.hexdigest()[:16]}.csv"
