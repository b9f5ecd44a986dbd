"""`anymodal tune`: search for better parameters, and use them where they are better.

No DVC stage: it may rewrite params.yaml, which decides what `dvc repro` runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, Trial, TrialState

from anymodal.config.editing import set_values
from anymodal.config.params import load_params
from anymodal.core.errors import AnymodalError
from anymodal.pipeline.context import Context
from anymodal.projection.training_data import TrainingData
from anymodal.tracking.metric_names import HEADLINE, metric_name
from anymodal.tracking.promotion import Decision, Gain, gain
from anymodal.tracking.runs import StageRun, close_run
from anymodal.tuning.forest import ForestTask
from anymodal.tuning.search_space import in_use, settings, suggest
from anymodal.tuning.study import (
    counted,
    figures,
    open_study,
    run_trials,
    study_name,
    trials_table,
    winner,
)
from anymodal.tuning.tasks import Task, Unfit
from anymodal.tuning.translation import TranslationTask

RUN = "mlflow_run"
"""Attribute of a trial: its MLflow run."""


@dataclass(frozen=True)
class TuningResult:
    """The outcome of a study."""

    what: str
    pair: str
    study: str
    trials: int
    """Trials that count."""
    pruned: int
    best: int | None
    """Number of the best trial."""
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Parameters in which the best trial differs from those in use, `section.name`: old and new."""
    gain: Gain | None = None
    """Measured on fresh seeds; None where there was nothing to compare."""
    wins: bool = False
    reason: str = "no trial was completed"
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
) -> list[TuningResult]:
    """Run the searches; return a result for each that ends in this process.

    `what` is `translation`, `forest` or `both`, `trials` the total number of trials of each study;
    None: those of params.yaml. Without `audio` and `image` the pair is that of classification. With
    `dry_run` neither params.yaml nor the registry is changed.
    """
    what = what or context.params.tune.what
    if what not in ("translation", "forest", "both"):
        raise AnymodalError(f"tune translation, forest or both, not {what!r}")
    if not audio or not image:
        chosen = context.selected_pair
        audio, image = audio or chosen[0], image or chosen[1]
    data = context.training_data((audio, image))
    results: list[TuningResult] = []
    for kind in (TranslationTask, ForestTask):
        if what not in (kind.what, "both"):
            continue
        task: Task = kind(context, data)
        tuned = _tune(context, task, data, params_file, trials, dry_run)
        if tuned is None:
            break
        results.append(tuned[0])
        # the forest must suit the translation that will be in use
        in_force = context.params.model_copy(update={task.section: tuned[1]})
        context = replace(context, params=in_force)
    return results


def _tune(
    context: Context,
    task: Task,
    data: TrainingData,
    params_file: Path,
    trials: int | None,
    dry_run: bool,
) -> tuple[TuningResult, Any] | None:
    """A study's result and the parameters to use from then on; None while other processes run its
    last trials."""
    params = context.params
    trials = trials or params.tune.trials
    name = study_name(f"{task.what} {data.pair}", task.space, task.depends_on)
    study = open_study(name, params.tune, context.workspace.root, task.steps)
    with context.stage_run("tune", f"{task.what} {data.pair}") as run:
        run.log_params({"what": task.what, "pair": data.pair, "study": name, "trials": trials})
        run.log_dataset(_used(task, data), context.dataset_ref, "tuning")
        with context.progress(f"tune {task.what}") as advance:

            def on_trial(trial: FrozenTrial) -> None:
                finished = [t for t in counted(study) if t.state.is_finished()]
                advance(len(finished), trials)
                best = winner(study)
                if best is not None and best.value is not None:
                    name = metric_name("best_score_by_trial", task.what)
                    run.log_metrics({name: best.value}, step=trial.number)

            state = run_trials(
                study,
                lambda trial: _score(trial, task, context, run),
                in_use(task.space, task.current, task.relevant),
                params.tune,
                trials,
                params.seed,
                on_trial,
            )
        _record(study, task, run, params.seed)
        if state == "others":
            run.set_tags({"result": "left to the process that ends last"})
            context.say(f"{name}: other processes run the last trials; the last one decides")
            return None
        result, chosen = _result(study, task, context, run, data.pair)
        if result.wins and not dry_run:
            result = _put_into_use(result, task, chosen, context, run, params_file)
        run.set_tags({"result": result.reason, "params_written": str(result.written).lower()})
        return result, chosen if result.wins else task.current


def _score(trial: Trial, task: Task, context: Context, run: StageRun) -> float:
    """Run a trial in a nested MLflow run."""
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

    named = {f"{task.section}.{name}": getattr(chosen, name) for name in task.space}
    pruned: optuna.TrialPruned | None = None
    score = float("nan")
    with run.nested(f"trial {trial.number}", named) as own:
        trial.set_user_attr(RUN, own.run_id)
        try:
            seeds = context.seeds(context.params.tune.seeds)
            scores = task.try_out(chosen, seeds, report)
            score = float(np.mean(scores))
            for seed, value in zip(seeds, scores, strict=True):
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
        # MLflow has no pruned runs; killed comes nearest
        close_run(context.params.tracking, own.run_id, "KILLED")
        raise pruned
    return score


def _result(
    study: optuna.Study, task: Task, context: Context, run: StageRun, pair: str
) -> tuple[TuningResult, Any]:
    """Compare the best trial's parameters with those in use, on seeds that neither has seen."""
    trials = counted(study)
    best = winner(study)
    result = TuningResult(
        what=task.what,
        pair=pair,
        study=study.study_name,
        trials=len(trials),
        pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
        best=None if best is None else best.number,
    )
    if best is None:
        return result, task.current
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
        return replace(result, reason=reason), chosen
    try:
        measured = _compare(task, chosen, context, run)
    except Unfit as error:
        reason = f"the best trial's parameters fail on other seeds: {error}"
        return replace(result, changes=changes, reason=reason), chosen
    wins = measured.beats(context.params.tune.min_gain)
    reason = f"{'' if wins else 'not '}better by more than the noise: {measured}"
    return replace(result, changes=changes, gain=measured, wins=wins, reason=reason), chosen


def _fresh_seeds(context: Context) -> list[int]:
    """Seeds that no trial and no stage has seen."""
    return [seed + 1000 for seed in context.seeds(context.params.tune.confirm_seeds)]


def _compare(task: Task, chosen: Any, context: Context, run: StageRun) -> Gain:
    seeds = _fresh_seeds(context)
    answers: dict[str, list[Any]] = {"new": [], "old": []}
    with context.progress(f"confirm {task.what}") as advance:
        for done, seed in enumerate(seeds):
            advance(done, len(seeds))
            for name, values in (("new", chosen), ("old", task.current)):
                answers[name].append(task.answers(values, seed))
                score, _ = task.rate(answers[name][-1:])
                metric = metric_name(f"confirm_{name}_by_seed", task.what)
                run.log_metrics({metric: score.value}, step=seed)
        advance(len(seeds), len(seeds))
    new, groups = task.rate(answers["new"])
    old, _ = task.rate(answers["old"])
    measured = gain(new, old, groups, context.params.seed)
    metrics = {"gain": measured.value, "new": measured.new, "old": measured.old}
    if measured.interval is not None:
        metrics |= {"gain_low": measured.interval.low, "gain_high": measured.interval.high}
    metrics |= {"groups": measured.groups, "seeds": measured.seeds}
    run.log_metrics({metric_name(f"confirm_{n}", task.what): v for n, v in metrics.items()})
    return measured


def _put_into_use(
    result: TuningResult,
    task: Task,
    chosen: Any,
    context: Context,
    run: StageRun,
    params_file: Path,
) -> TuningResult:
    """Register the model that the parameters train, and write them to params.yaml."""
    now = getattr(load_params(params_file), task.section)
    if now != task.current:
        reason = f"{params_file} was changed in the meantime and is left alone; {result.reason}"
        return replace(result, reason=reason)
    version = ""
    if context.params.tracking.register_models:
        scores = {
            seed: task.rate([task.answers(chosen, seed)])[0].value for seed in _fresh_seeds(context)
        }
        seed = max(scores, key=lambda seed: scores[seed])
        decision = Decision(True, f"its parameters are {result.reason}", result.gain)
        version = task.register(chosen, seed, decision, run, result.study)
    # last, so that a run that is killed before is repeated
    values: Mapping[str, Any] = {
        name.partition(".")[2]: new for name, (_, new) in result.changes.items()
    }
    set_values(params_file, task.section, values)
    return replace(result, written=True, version=version)


def _record(study: optuna.Study, task: Task, run: StageRun, seed: int) -> None:
    table = trials_table(study)
    if table.empty:
        return
    run.log_table(table, "trials")
    run.log_metrics({f"trials/{state}": n for state, n in table["state"].value_counts().items()})
    for name, figure in figures(study, seed).items():
        run.log_figure(figure, f"{name}.png")


def _used(task: Task, data: TrainingData) -> pd.DataFrame:
    """The clips that a study uses."""
    splits: list[Any] = [data.train, data.valid]
    if isinstance(task, ForestTask):
        splits += task.rows.values()
    clips = pd.concat([rows.clips for split in splits for rows in split.values()])
    return clips.drop_duplicates("clip_id").reset_index(drop=True)
