"""Stage `tune`: search for better parameters, and put them into use where they are better.

No part of `dvc repro`: what it finds goes into params.yaml, which decides what `dvc repro` runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, Trial, TrialState

from anymodal.champion import Decision, Gain, gain
from anymodal.errors import AnymodalError
from anymodal.params import load_params
from anymodal.params_file import set_values
from anymodal.report.tuning_figures import history_figure, importance_figure, parallel_figure
from anymodal.search_space import axis_ends, in_use, settings, suggest
from anymodal.stages.base import Context, basis
from anymodal.stages.select import selected_pair
from anymodal.stages.translation_data import TranslationData
from anymodal.stages.tune_forest import ForestTask
from anymodal.stages.tune_tasks import Task, Unfit, fresh_seeds, trial_seeds
from anymodal.stages.tune_translation import TranslationTask
from anymodal.tracking import HEADLINE, StageRun, close_run, metric_name, stage_run
from anymodal.tuning import (
    axis_places,
    counted,
    importances,
    open_study,
    run_trials,
    study_name,
    trials_table,
    winner,
)

RUN = "mlflow_run"
"""Attribute of a trial: its MLflow run."""


@dataclass(frozen=True)
class Verdict:
    """What a study came to."""

    what: str
    pair: str
    study: str
    trials: int
    """Trials that count."""
    pruned: int
    best: int | None
    """Number of the best trial."""
    changes: dict[str, tuple[Any, Any]]
    """Parameters in which the best trial differs from those in use, `section.name`: old and new."""
    gain: Gain | None
    """What fresh seeds say of it; None where there was nothing to compare."""
    wins: bool
    reason: str
    written: bool = False
    """Whether params.yaml was changed."""
    version: str = ""
    """The registered version, if any."""


def tune(
    context: Context,
    params_file: Path,
    what: str | None = None,
    trials: int | None = None,
    audio: str = "",
    image: str = "",
    dry_run: bool = False,
) -> list[Verdict]:
    """Run the stage; return the verdicts.

    `what` is `translation`, `forest` or `both`, `trials` the number of trials of each study in all;
    None takes those of params.yaml. Without `audio` and `image` the pair is the one that
    classification uses. With `dry_run` neither params.yaml nor the registry is changed. A study
    whose last trials still run in other processes gives no verdict here.
    """
    what = what or context.params.tune.what
    if what not in ("translation", "forest", "both"):
        raise AnymodalError(f"tune translation, forest or both, not {what!r}")
    if not audio or not image:
        chosen = selected_pair(context.workspace, context.params)
        audio, image = audio or chosen[0], image or chosen[1]
    data = TranslationData.load(context, audio, image)
    verdicts: list[Verdict] = []
    if what in ("translation", "both"):
        translation = TranslationTask(context, data)
        found = _tune(context, translation, data, params_file, trials, dry_run)
        if found is None:
            return verdicts
        verdicts.append(found[0])
        # the forest is to suit the translation that will be in use
        translate = context.params.model_copy(update={"translate": found[1]})
        context = replace(context, params=translate)
    if what in ("forest", "both"):
        forest = ForestTask(context, data)
        found = _tune(context, forest, data, params_file, trials, dry_run)
        verdicts += [found[0]] if found else []
    return verdicts


def _tune(
    context: Context,
    task: Task,
    data: TranslationData,
    params_file: Path,
    trials: int | None,
    dry_run: bool,
) -> tuple[Verdict, Any] | None:
    """One study to its verdict and the parameters to use from then on; None where other processes
    still run the last trials."""
    params = context.params
    tuning = params.tune if trials is None else params.tune.model_copy(update={"trials": trials})
    name = study_name(f"{task.what} {data.pair}", task.space, task.depends_on)
    study = open_study(name, tuning, context.workspace.root, task.steps)
    rests_on = basis(context.workspace)
    with stage_run("tune", params, rests_on, f"{task.what} {data.pair}") as run:
        run.log_params(
            {"what": task.what, "pair": data.pair, "study": name, "trials": tuning.trials}
        )
        run.log_dataset(_used(task, data), rests_on, "tuning")
        with context.progress(f"tune {task.what}") as advance:

            def told(trial: FrozenTrial) -> None:
                over = [t for t in counted(study) if t.state.is_finished()]
                advance(len(over), tuning.trials)
                best = winner(study)
                if best is not None and best.value is not None:
                    name = metric_name("best_score_by_trial", task.what)
                    run.log_metrics({name: best.value}, step=trial.number)

            state = run_trials(
                study,
                lambda trial: _score(trial, task, context, run),
                in_use(task.space, task.current, task.relevant),
                tuning,
                tuning.trials,
                params.seed,
                told,
            )
        _record(study, task, run, params.seed)
        if state == "others":
            run.set_tags({"verdict": "left to the process that ends last"})
            context.say(f"{name}: other processes run the last trials; the last one decides")
            return None
        verdict, chosen = _judge(study, task, context, run, data.pair)
        if verdict.wins and not dry_run:
            verdict = _put_into_use(verdict, task, chosen, context, run, params_file)
        run.set_tags({"verdict": verdict.reason, "params_written": str(verdict.written).lower()})
        return verdict, chosen if verdict.wins else task.current


def _score(trial: Trial, task: Task, context: Context, run: StageRun) -> float:
    """A trial in a run of its own."""
    if killed := trial.user_attrs.get(RUN):
        close_run(context.params.tracking, killed, "KILLED")
    chosen = settings(suggest(trial, task.space, task.relevant), task.current)
    curve: dict[int, float] = {}

    def report(step: int, value: float) -> None:
        curve[step] = value
        trial.report(value, step)
        if trial.should_prune():
            trial.set_user_attr("why", f"below the others after step {step}")
            raise optuna.TrialPruned

    told = {name: getattr(chosen, name) for name in task.space}
    named = {f"{task.section}.{name}": value for name, value in told.items()}
    pruned: optuna.TrialPruned | None = None
    score = float("nan")
    with run.nested(f"trial {trial.number}", named) as own:
        trial.set_user_attr(RUN, own.run_id)
        try:
            scores = task.try_out(chosen, trial_seeds(context), report)
            score = float(np.mean(scores))
            for seed, value in zip(trial_seeds(context), scores, strict=True):
                own.log_metrics({metric_name("score_by_seed", task.what): value}, step=seed)
            own.log_metrics({metric_name("score", task.what): score})
        except Unfit as error:
            trial.set_user_attr("why", str(error))
            pruned = optuna.TrialPruned(str(error))
        except optuna.TrialPruned as error:
            pruned = error
        finally:
            own.log_history(metric_name(f"score_by_{task.step}", task.what), curve)
        if pruned is not None:
            own.set_tags({"pruned": trial.user_attrs.get("why", "")})
    if pruned is not None:
        # MLflow knows no pruned runs; killed comes nearest
        close_run(context.params.tracking, own.run_id, "KILLED")
        raise pruned
    return score


def _judge(
    study: optuna.Study, task: Task, context: Context, run: StageRun, pair: str
) -> tuple[Verdict, Any]:
    """The best trial's parameters against those in use, on seeds that neither has seen."""
    there = counted(study)
    best = winner(study)
    verdict = Verdict(
        what=task.what,
        pair=pair,
        study=study.study_name,
        trials=len(there),
        pruned=sum(trial.state == TrialState.PRUNED for trial in there),
        best=None if best is None else best.number,
        changes={},
        gain=None,
        wins=False,
        reason="no trial was completed",
    )
    if best is None:
        return verdict, task.current
    assert best.value is not None
    run.log_metrics({HEADLINE + metric_name("best_score", task.what): best.value})
    chosen = settings(best.params, task.current)
    changes = {
        f"{task.section}.{name}": (getattr(task.current, name), getattr(chosen, name))
        for name in task.space
        if getattr(task.current, name) != getattr(chosen, name)
    }
    if not changes:
        reason = "no trial beat the parameters in use"
        return replace(verdict, reason=reason), chosen
    try:
        found = _compare(task, chosen, context, run)
    except Unfit as error:
        reason = f"the best trial's parameters fail on other seeds: {error}"
        return replace(verdict, changes=changes, reason=reason), chosen
    wins = found.beats(context.params.tune.min_gain)
    reason = f"{'' if wins else 'not '}better by more than the noise: {found}"
    return replace(verdict, changes=changes, gain=found, wins=wins, reason=reason), chosen


def _compare(task: Task, chosen: Any, context: Context, run: StageRun) -> Gain:
    seeds = fresh_seeds(context)
    answers: dict[str, list[Any]] = {"new": [], "old": []}
    with context.progress(f"confirm {task.what}") as advance:
        for done, seed in enumerate(seeds):
            advance(done, len(seeds))
            for name, one in (("new", chosen), ("old", task.current)):
                answers[name].append(task.answers(one, seed))
                score, _ = task.rate(answers[name][-1:])
                metric = metric_name(f"confirm_{name}_by_seed", task.what)
                run.log_metrics({metric: score.value}, step=seed)
        advance(len(seeds), len(seeds))
    new, groups = task.rate(answers["new"])
    old, _ = task.rate(answers["old"])
    found = gain(new, old, groups, context.params.seed)
    metrics = {"gain": found.value, "new": found.new, "old": found.old}
    if found.interval is not None:
        metrics |= {"gain_low": found.interval.low, "gain_high": found.interval.high}
    metrics |= {"groups": found.groups, "seeds": found.seeds}
    run.log_metrics({metric_name(f"confirm_{n}", task.what): v for n, v in metrics.items()})
    return found


def _put_into_use(
    verdict: Verdict, task: Task, chosen: Any, context: Context, run: StageRun, params_file: Path
) -> Verdict:
    """Register what the parameters train, and write them to params.yaml."""
    now = getattr(load_params(params_file), task.section)
    if now != task.current:
        reason = f"{params_file} was changed in the meantime and is left alone; {verdict.reason}"
        return replace(verdict, reason=reason)
    version = ""
    if context.params.tracking.register_models:
        scores = {
            seed: task.rate([task.answers(chosen, seed)])[0].value for seed in fresh_seeds(context)
        }
        seed = max(scores, key=lambda one: scores[one])
        decision = Decision(True, f"its parameters are {verdict.reason}", verdict.gain)
        version = task.register(chosen, seed, decision, run, verdict.study)
    # last, so that what was killed before is done again
    values: Mapping[str, Any] = {
        name.partition(".")[2]: new for name, (_, new) in verdict.changes.items()
    }
    set_values(params_file, task.section, values)
    return replace(verdict, written=True, version=version)


def _record(study: optuna.Study, task: Task, run: StageRun, seed: int) -> None:
    table = trials_table(study)
    if table.empty:
        return
    run.log_table(table, "trials")
    run.log_metrics({f"trials/{state}": n for state, n in table["state"].value_counts().items()})
    run.log_figure(history_figure(table, task.score), "history.png")
    run.log_figure(importance_figure(importances(study, seed)), "importances.png")
    places = axis_places(study, task.space)
    if len(places):
        scores = table.set_index("trial").loc[places.index, "score"]
        run.log_figure(parallel_figure(places, scores, axis_ends(task.space)), "parallel.png")


def _used(task: Task, data: TranslationData) -> pd.DataFrame:
    """The clips that a study reads."""
    splits: list[Any] = [data.train, data.valid]
    if isinstance(task, ForestTask):
        splits += task.rows.values()
    clips = pd.concat([rows.clips for split in splits for rows in split.values()])
    return clips.drop_duplicates("clip_id").reset_index(drop=True)
