"""A search for better parameters that can be killed, resumed and shared (Optuna).

A study lives in a database. Any process that opens it by the same name takes part: trials are
counted in all, a trial that was killed is run anew by whoever notices, and what a sampler has
learned is what all of them have tried. The name says what the trials' scores depend on, so that
another dataset, pair of encoders or search space is another study.

What counts
-----------
Of N trials in all, those count that are waiting, running, completed or pruned. Killed ones do not:
they come back. When two processes start the last trial at once, the later of the two gives way
(it fails with the attribute `surplus`), which is decided by the trials' numbers alone.

Order
-----
The sampler is seeded by the trial's number, so that one process, killed or not, draws the same
first trials, and two processes do not draw the same one twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import IntegrityError

from anymodal.errors import AnymodalError
from anymodal.search_space import Space, axis_place
from anymodal.tune_params import TuneParams

GRACE = 3
"""Heartbeats that a trial may miss before it counts as killed."""
BEGUN = "begun"
"""Attribute of a trial that is under way: its number, the machine and the process."""
RETRIES = 3
"""How often a killed trial is run anew: one that kills its process must not do so for ever."""


class Surplus(Exception):
    """The study has its trials; this one was begun at the same moment as the last."""


def study_name(what: str, space: Space, depends_on: Mapping[str, Any]) -> str:
    """`<what> <hash>` of the search space and all else that scores depend on, JSON values."""
    told = {name: optuna.distributions.distribution_to_json(found) for name, found in space.items()}
    content = json.dumps({"space": told, **depends_on}, sort_keys=True)
    return f"{what} {hashlib.sha256(content.encode()).hexdigest()[:12]}"


def open_study(name: str, params: TuneParams, root: Path, steps: int) -> optuna.Study:
    """Open the study `name`, or make it; `steps` is how many values a trial reports at most."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage_url(params.storage, root)
    with _quiet():
        storage = _storage(url, params.heartbeat_s)
        return optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            pruner=_pruner(params, steps),
            load_if_exists=True,
        )


def storage_url(url: str, root: Path) -> str:
    """`url` with a relative SQLite path taken from the project's folder `root`, which is made."""
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
    told: Callable[[FrozenTrial], None] = lambda trial: None,
) -> Literal["last", "others"]:
    """Run trials until the study has `trials` in all, or `params.timeout_s` are over.

    `score` gives a trial's score, or raises `optuna.TrialPruned`; what else it raises ends the
    search. `first` are the values of the first trial. `told` is called after every trial of this
    process.

    Returns `last` where nothing is left running, and `others` where other processes still are,
    whose last one comes to `last`.
    """
    grace = GRACE * params.heartbeat_s
    limit = None if params.timeout_s is None else time.monotonic() + params.timeout_s
    sampler = _sampler(params, seed)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(first), skip_if_exists=True)

    def guarded(trial: Trial) -> float:
        trial.set_user_attr(BEGUN, f"{trial.number} {socket.gethostname()} {os.getpid()}")
        if sum(other.number <= trial.number for other in counted(study)) > trials:
            trial.set_user_attr("surplus", True)
            raise Surplus
        study.sampler = sampler(trial.number)
        try:
            return score(trial)
        except KeyboardInterrupt:
            study.enqueue_trial(trial.params)
            raise

    while True:
        if limit is not None and time.monotonic() >= limit:
            running = any(trial.state == TrialState.RUNNING for trial in counted(study))
            return "others" if running else "last"
        there = counted(study)
        if len(there) < trials or any(trial.state == TrialState.WAITING for trial in there):
            with _quiet():
                study.optimize(
                    guarded, 1, catch=(Surplus,), callbacks=[lambda _, trial: told(trial)]
                )
        elif (found := _await_others(study, grace)) != "again":
            return found


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count (see the module's head), in order."""
    there = study.get_trials(deepcopy=False)
    return [trial for trial in there if trial.state != TrialState.FAIL]


def winner(study: optuna.Study) -> FrozenTrial | None:
    """The completed trial with the highest score, the earliest of equals; None without any."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """One row a trial that counts: number, state, score, seconds, why it ended, parameters."""
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


def axis_places(study: optuna.Study, space: Space) -> pd.DataFrame:
    """Where the values of completed trials lie on an axis a parameter, 0 to 1; one row a trial,
    NaN where a parameter did not matter. The index is the trial's number."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    rows = {
        trial.number: {
            name: axis_place(found, trial.params[name]) if name in trial.params else math.nan
            for name, found in space.items()
        }
        for trial in done
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(space), dtype=float)


def importances(study: optuna.Study, seed: int) -> dict[str, float]:
    """Share of the completed trials' spread that each parameter explains (fANOVA, Hutter et al.
    2014), of those parameters that all of them have; empty where there is too little to tell."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 8 or len({trial.value for trial in done}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    with _quiet():
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def _await_others(study: optuna.Study, grace: float) -> Literal["last", "others", "again"]:
    """What becomes of the trials that still run elsewhere.

    `again` where one of them turned out to be dead and waits to be run anew.
    """
    running = {t.number: t for t in counted(study) if t.state == TrialState.RUNNING}
    if not running:
        return "last"
    # a trial whose process died before its first sign of life has no heartbeat that could stop
    unborn = {number for number, trial in running.items() if not _has_begun(trial)}
    deadline = time.monotonic() + grace + 1
    while time.monotonic() < deadline:
        time.sleep(min(0.5, grace / 10))
        with _quiet():
            optuna.storages.fail_stale_trials(study)
        there = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        if any(trial.state == TrialState.WAITING for trial in there.values()):
            return "again"
        if not any(trial.state == TrialState.RUNNING for trial in there.values()):
            # whoever told the last of them goes on; nobody does where it died for good
            dead = any(there[number].state == TrialState.FAIL for number in running)
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
    # a trial that is run anew has the attributes of the killed one, so the number is in it
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
            # two processes that make the tables at the same moment get in each other's way
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


def _sampler(params: TuneParams, seed: int) -> Callable[[int], optuna.samplers.BaseSampler]:
    def of_trial(number: int) -> optuna.samplers.BaseSampler:
        key = int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4])
        return optuna.samplers.TPESampler(
            n_startup_trials=params.startup_trials,
            seed=key,
            # each parameter by itself: some matter only for some values of others
            multivariate=False,
            constant_liar=True,
        )

    return of_trial


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna calls heartbeats, retries and the like experimental at every use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
