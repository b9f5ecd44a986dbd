"""A search for better parameters that can be killed, resumed and shared (Optuna).

A study is kept in a database, and any process that opens it by the same name takes part. Trials
that are waiting, running, completed or pruned count towards the total; killed ones are run again.
When two processes start the last trial at once, the later one gives way. The sampler is seeded by
the trial's number, so that one process, killed or not, draws the same trials.
"""

from __future__ import annotations

import hashlib
import math
import os
import socket
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import IntegrityError

from anymodal.config.tuning import TuneParams
from anymodal.core.errors import AnymodalError
from anymodal.core.fingerprint import fingerprint
from anymodal.tuning.search_space import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRACE = 3
"""Heartbeats that a trial may miss before it counts as killed."""
BEGUN = "begun"
"""Attribute of a running trial: its number, machine and process."""
RETRIES = 3
"""How often a killed trial is run again: it may be what kills its process."""


class Surplus(Exception):
    """A trial beyond the total, started at the same time as the last one."""


def study_name(what: str, space: Space, depends_on: Mapping[str, Any]) -> str:
    """`<what> <hash>` of the search space and everything else that scores depend on."""
    dimensions = sorted(
        (name, optuna.distributions.distribution_to_json(each)) for name, each in space.items()
    )
    return f"{what} {fingerprint(dimensions, sorted(depends_on.items()))[:12]}"


def open_study(name: str, params: TuneParams, root: Path, steps: int) -> optuna.Study:
    """Open the study `name`, or make it; a trial reports at most `steps` values."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # heartbeats and plots
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna.create_study(
        study_name=name,
        storage=_storage(storage_url(params.storage, root), params.heartbeat_s),
        direction="maximize",
        pruner=_pruner(params, steps),
        load_if_exists=True,
    )


def storage_url(url: str, root: Path) -> str:
    """`url`, with a relative SQLite path resolved against the project's folder `root`."""
    scheme, mark, path = url.partition(":///")
    if not mark or not scheme.startswith("sqlite") or not path or path.startswith((":", "file:")):
        return url
    target = Path(root, path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    return f"{scheme}:///{target}"


def run_trials(
    study: optuna.Study,
    score: Callable[[Trial], float],
    first: Mapping[str, Any],
    params: TuneParams,
    trials: int,
    seed: int,
    on_trial: Callable[[FrozenTrial], None] = lambda trial: None,
) -> Literal["last", "others"]:
    """Run trials until the study has `trials` in total, or for `params.timeout_s`.

    `score` returns a trial's score or raises `optuna.TrialPruned`. `first` are the values of the
    first trial. Returns `last` when no trial is running, `others` while other processes run some.
    """
    grace = GRACE * params.heartbeat_s
    limit = math.inf if params.timeout_s is None else time.monotonic() + params.timeout_s
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(first), skip_if_exists=True)

    def guarded(trial: Trial) -> float:
        trial.set_user_attr(BEGUN, f"{trial.number} {socket.gethostname()} {os.getpid()}")
        if sum(other.number <= trial.number for other in counted(study)) > trials:
            trial.set_user_attr("surplus", True)
            raise Surplus
        study.sampler = _sampler(params, seed, trial.number)
        try:
            return score(trial)
        except KeyboardInterrupt:
            study.enqueue_trial(trial.params)
            raise

    while True:
        if time.monotonic() >= limit:
            running = any(trial.state == TrialState.RUNNING for trial in counted(study))
            return "others" if running else "last"
        trials_now = counted(study)
        waiting = any(trial.state == TrialState.WAITING for trial in trials_now)
        if len(trials_now) < trials or waiting:
            study.optimize(
                guarded, 1, catch=(Surplus,), callbacks=[lambda _, trial: on_trial(trial)]
            )
        elif (state := _await_others(study, grace)) != "again":
            return state


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count towards the total, in order."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state != TrialState.FAIL]


def winner(study: optuna.Study) -> FrozenTrial | None:
    """The completed trial with the highest score, the earliest of equals; None without any."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """One row per trial that counts: number, state, score, seconds, why it ended, parameters."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "score": trial.value if trial.state == TrialState.COMPLETE else math.nan,
            "steps": len(trial.intermediate_values),
            "seconds": trial.duration.total_seconds() if trial.duration else math.nan,
            "why": trial.user_attrs.get("why", ""),
            **{name: str(value) for name, value in trial.params.items()},
        }
        for trial in counted(study)
    ]
    return pd.DataFrame(rows).fillna({"why": ""})


def figures(study: optuna.Study, seed: int) -> dict[str, Figure]:
    """Optuna's plots of a study: history, importances (fANOVA) and parallel coordinates."""
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    drawn: dict[str, Callable[[], Any]] = {
        "history": lambda: plots.plot_optimization_history(study)
    }
    if len(done) > 1:
        drawn["parallel"] = lambda: plots.plot_parallel_coordinate(study)
    if len(done) >= 8 and len({trial.value for trial in done}) > 1:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        drawn["importances"] = lambda: plots.plot_param_importances(study, evaluator=evaluator)
    figures = {name: draw().figure for name, draw in drawn.items()}
    for figure in figures.values():
        plt.close(figure)
    return figures


def _await_others(study: optuna.Study, grace: float) -> Literal["last", "others", "again"]:
    """Wait for the trials of other processes; `again` when one of them died and can be run."""
    running = {t.number: t for t in counted(study) if t.state == TrialState.RUNNING}
    if not running:
        return "last"
    # a trial whose process died before its first heartbeat never goes stale
    unborn = {number for number, trial in running.items() if not _has_begun(trial)}
    deadline = time.monotonic() + grace + 1
    while time.monotonic() < deadline:
        time.sleep(min(0.5, grace / 10))
        optuna.storages.fail_stale_trials(study)
        now = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        if any(trial.state == TrialState.WAITING for trial in now.values()):
            return "again"
        if not any(trial.state == TrialState.RUNNING for trial in now.values()):
            # the process that ends the last trial continues; none does if that trial died for good
            dead = any(now[number].state == TrialState.FAIL for number in running)
            return "last" if dead else "others"
    revived = False
    for number in unborn:
        trial = study.get_trials(deepcopy=False)[number]
        if trial.state == TrialState.RUNNING and not _has_begun(trial):
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            study.enqueue_trial(trial.params)
            revived = True
    return "again" if revived else "others"


def _has_begun(trial: FrozenTrial) -> bool:
    # a trial that is run again has the attributes of the killed one, hence the number
    return trial.user_attrs.get(BEGUN, "").startswith(f"{trial.number} ")


def _storage(url: str, heartbeat_s: int) -> optuna.storages.RDBStorage:
    arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
    for attempt in range(10):
        try:
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=arguments,
                heartbeat_interval=heartbeat_s,
                grace_period=GRACE * heartbeat_s,
                heartbeat_stale_trial_callback=retry,
            )
        except Exception as error:
            # two processes that create the tables at the same time can collide
            if attempt < 9 and ("exists" in str(error) or isinstance(error, IntegrityError)):
                time.sleep(0.2 * (attempt + 1))
                continue
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise AnymodalError(
                f"no study can be kept at {url} (tune.storage): {reason}"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def _pruner(params: TuneParams, steps: int) -> optuna.pruners.BasePruner:
    if params.pruner == "hyperband" and steps > 1:
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=steps)
    if params.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=params.startup_trials,
        n_warmup_steps=params.warmup_epochs if steps > params.warmup_epochs else 0,
    )


def _sampler(params: TuneParams, seed: int, number: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(
        n_startup_trials=params.startup_trials,
        seed=int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4]),
        # each parameter by itself: some matter only for some values of others
        multivariate=False,
        constant_liar=True,
    )
