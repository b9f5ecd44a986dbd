"""Stage `mixing`: what labels of the target modality add (paper, Fig. 3)."""

from __future__ import annotations

import pandas as pd

from anymodal.core.fingerprint import fingerprint
from anymodal.core.journal import Journal
from anymodal.core.modality import MODALITIES
from anymodal.core.storage import write_parquet
from anymodal.core.workspace import pair_name
from anymodal.evaluation.classification import Splits
from anymodal.evaluation.forests import ForestSettings
from anymodal.evaluation.mixing import Fit, MixingResult, plan, score_all, summarise_curve
from anymodal.pipeline.context import Context
from anymodal.pipeline.features import project
from anymodal.tracking.metric_names import metric_name


def mixing(context: Context) -> MixingResult:
    """Run the stage. Every forest's score is kept, so a killed run resumes with the next one."""
    workspace, params = context.workspace, context.params
    pair = context.selected_pair
    rows = {split: context.rows(pair, "classification", split) for split in ("train", "test")}
    reduced, *translated = [
        project(context.projection(pair, rows["train"], seed), rows)
        for seed in (None, *context.seeds(params.classify.seeds))
    ]
    settings = ForestSettings.of(params.classify, params.mixing.library)
    available = {modality: len(rows["train"][modality].clips) for modality in MODALITIES}
    fits = plan(params.mixing.points, params.mixing.draws, available)
    with context.pair_run("mixing", pair, "classification") as run:
        inputs = fingerprint(settings, params.seed, _arrays(reduced), *map(_arrays, translated))
        journal = Journal(workspace.scratch / "mixing" / f"{inputs[:16]}.jsonl")
        finished = {Fit(*entry["fit"]): float(entry["score"]) for entry in journal.entries}
        scores = {fit: finished[fit] for fit in fits if fit in finished}
        todo = [fit for fit in fits if fit not in scores]
        with context.progress(f"mixing {pair_name(*pair)}") as advance:
            advance(len(scores), len(fits))
            for fit, score in score_all(
                todo, translated, reduced, settings, params.seed, params.mixing.workers
            ):
                journal.append({"fit": fit, "score": score})
                scores[fit] = score
                advance(len(scores), len(fits))
        curve = pd.DataFrame(fits).assign(macro_f1=[scores[fit] for fit in fits])
        result = MixingResult(
            **context.measured(pair),
            classes=context.dataset.classes,
            train_rows=available,
            points=summarise_curve(curve),
        )
        write_parquet(workspace.mixing_curve, curve)
        result.write(workspace.mixing)
        table = pd.DataFrame([point.model_dump() for point in result.points])
        for (system, target), points in table.groupby(["system", "target"]):
            values = dict(zip(points["samples"].tolist(), points["mean"].tolist(), strict=True))
            run.log_history(metric_name("macro_f1_by_rows", str(system), str(target)), values)
        run.log_table(table, "curve")
        run.log_file(workspace.mixing)
        journal.path.unlink(missing_ok=True)
    return result


def _arrays(features: Splits) -> list[object]:
    return [
        (split, modality, rows.features, rows.instruments, rows.clip_ids)
        for split, modalities in features.items()
        for modality, rows in modalities.items()
    ]
