"""Studies: trials in all, resuming after a kill, sharing, pruning; objectives that cost nothing."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from anymodal.config.tuning import TuneParams
from anymodal.core.errors import AnymodalError
from anymodal.tuning.study import (
    counted,
    figures,
    open_study,
    run_trials,
    storage_url,
    study_name,
    trials_table,
    winner,
)
from helpers.paths import TESTS

PARAMS = TuneParams(heartbeat_s=1, startup_trials=3, warmup_epochs=5)
SPACE = {"x": FloatDistribution(-1, 1), "y": FloatDistribution(-1, 1)}


def parabola(trial):
    x, y = (trial.suggest_float(name, -1, 1) for name in ("x", "y"))
    return 1 - x * x - 0.1 * y * y


def states(study):
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def run(study, trials, score=parabola, params=PARAMS, **options):
    return run_trials(study, score, {"x": 0.9, "y": 0.9}, params, trials, 0, **options)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder with a database of no trials: making its tables takes longer than copying them."""
    folder = tmp_path_factory.mktemp("tables")
    open_study("none", PARAMS, folder, 1)
    return folder


@pytest.fixture
def folder(tables, tmp_path):
    return shutil.copytree(tables, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def study(folder):
    return open_study("s", PARAMS, folder, 1)


def test_the_parameters_in_use_are_the_first_trial_and_trials_count_in_all(study, folder):
    seen = []
    assert run(study, 6, on_trial=lambda trial: seen.append(trial.number)) == "last"
    assert study.trials[0].params == {"x": 0.9, "y": 0.9}
    assert states(study) == [TrialState.COMPLETE] * 6 and seen == list(range(6))
    again = open_study("s", PARAMS, folder, 1)
    assert run(again, 6) == "last" and len(again.trials) == 6
    assert run(again, 8) == "last" and len(again.trials) == 8
    assert winner(again).value == max(trial.value for trial in again.trials)


@pytest.mark.slow
def test_one_process_stopped_or_not_draws_the_same_trials(folder):
    whole = open_study("whole", PARAMS, folder, 1)
    run(whole, 12)
    parts = open_study("parts", PARAMS, folder, 1)
    for trials in (2, 3, 7, 12):
        run(open_study("parts", PARAMS, folder, 1), trials)
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]
    # nor does it draw one of them twice
    assert len({tuple(t.params.values()) for t in whole.trials}) == 12


@pytest.mark.slow
def test_the_sampler_learns(folder):
    study = open_study("s", PARAMS, folder, 1)
    run(study, 25)
    values = [trial.value for trial in study.trials]
    assert sum(values[15:]) / 10 > sum(values[1:6]) / 5
    drawn = figures(study, 0)
    assert set(drawn) == {"history", "parallel", "importances"}
    bars = {bar.get_width() for bar in drawn["importances"].axes[0].patches}
    assert sum(bars) == pytest.approx(1)


@pytest.mark.slow
def test_bad_trials_are_pruned_with_a_reason(folder):
    def score(trial):
        x = trial.suggest_float("x", -1, 1)
        trial.suggest_float("y", -1, 1)
        for step in range(1, 9):
            trial.report(-abs(x), step)
            if trial.should_prune():
                trial.set_user_attr("why", f"step {step}")
                raise optuna.TrialPruned
        return -abs(x)

    study = open_study("s", PARAMS, folder, 8)
    run(study, 20, score)
    table = trials_table(study)
    pruned = table[table["state"] == "pruned"]
    assert 0 < len(pruned) < 20
    # not before the warm-up, and not before there is something to compare with
    assert pruned["steps"].min() >= PARAMS.warmup_epochs and pruned["trial"].min() >= 3
    assert pruned["score"].isna().all() and (pruned["why"] != "").all()
    for row in pruned.itertuples():
        before = table[(table["trial"] < row.trial) & (table["state"] == "complete")]
        assert -abs(float(row.x)) < before["score"].median()


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_pruners(pruner, folder):
    params = PARAMS.model_copy(update={"pruner": pruner})
    study = open_study("s", params, folder, 30)
    name = {"median": "MedianPruner", "hyperband": "HyperbandPruner", "none": "NopPruner"}[pruner]
    assert type(study.pruner).__name__ == name
    run(study, 4, params=params)
    assert len(counted(study)) == 4


def test_an_error_ends_the_search_and_the_trial_does_not_count(study):
    def broken(trial):
        if trial.number == 2:
            raise ValueError("boom")
        return parabola(trial)

    with pytest.raises(ValueError, match="boom"):
        run(study, 5, broken)
    assert run(study, 5) == "last"
    assert len(counted(study)) == 5 and states(study).count(TrialState.FAIL) == 1


def test_a_stopped_trial_is_run_again(study):
    def stopped(trial):
        score = parabola(trial)
        if trial.number == 2:
            raise KeyboardInterrupt
        return score

    with pytest.raises(KeyboardInterrupt):
        run(study, 5, stopped)
    run(study, 5)
    killed, retried = study.trials[2], study.trials[3]
    assert killed.state == TrialState.FAIL and retried.state == TrialState.COMPLETE
    assert retried.params == killed.params and len(counted(study)) == 5


def test_time_runs_out(study):
    params = PARAMS.model_copy(update={"timeout_s": 0.5})
    began = time.monotonic()

    def slow(trial):
        time.sleep(0.2)
        return parabola(trial)

    assert run(study, 1000, slow, params) == "last"
    assert time.monotonic() - began < 20 and 1 <= len(counted(study)) < 100


def take_part(folder, trials, seconds):
    study = open_study("s", PARAMS, folder, 1)

    def slow(trial):
        value = parabola(trial)
        time.sleep(seconds)
        return value

    print(run(study, trials, slow))


@pytest.mark.slow
def test_processes_share_a_study_and_its_trials(tmp_path):
    """All open it at once, which makes the tables at once, and none takes a trial too many."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=take_part, args=(tmp_path, 9, 0.3)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    study = open_study("s", PARAMS, tmp_path, 1)
    there = counted(study)
    assert [trial.state for trial in there] == [TrialState.COMPLETE] * 9
    assert len({trial.user_attrs["begun"].split()[2] for trial in there}) > 1
    surplus = [t for t in study.trials if t.state == TrialState.FAIL]
    assert all(trial.user_attrs.get("surplus") for trial in surplus)


def test_of_two_that_start_the_last_trial_the_later_gives_way(study, monkeypatch):
    run(study, 3)
    optimize = study.optimize

    def just_after_a_rival(*args, **options):
        monkeypatch.undo()
        rival = study.ask()
        rival.set_user_attr("begun", f"{rival.number} elsewhere 1")
        optimize(*args, **options)
        study.tell(rival, 0.5)

    monkeypatch.setattr(study, "optimize", just_after_a_rival)
    scored = []
    assert run(study, 4, lambda trial: scored.append(trial.number) or parabola(trial)) == "last"
    assert scored == []
    assert len(counted(study)) == 4 and study.trials[3].value == 0.5
    assert study.trials[4].user_attrs["surplus"] and study.trials[4].state == TrialState.FAIL


SCRIPT = """
import sys, time
from pathlib import Path
from test_study import PARAMS, open_study, parabola, run

def slow(trial):
    value = parabola(trial)
    print(trial.number, flush=True)
    time.sleep(float(sys.argv[2]))
    return value

print(run(open_study("s", PARAMS, Path(sys.argv[1]), 1), 5, slow), flush=True)
"""


def start(folder, seconds):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS / 'tuning'}"},
    )


@pytest.mark.slow
def test_a_killed_trial_is_run_anew(folder):
    process = start(folder, 0.5)
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    study = open_study("s", PARAMS, folder, 1)
    before = {t.number: t.value for t in study.trials if t.state == TrialState.COMPLETE}
    (running,) = (t for t in study.trials if t.state == TrialState.RUNNING)
    assert len(before) == 2
    # a second process while the first is not known to be dead: nothing is done twice
    assert run(study, 3) == "last"
    killed, retried = study.trials[running.number], study.trials[3]
    assert killed.state == TrialState.FAIL
    assert retried.params == killed.params and retried.state == TrialState.COMPLETE
    assert {n: study.trials[n].value for n in before} == before
    assert len(counted(study)) == 3


@pytest.mark.slow
def test_a_trial_that_died_before_its_first_sign_of_life_is_run_anew(study):
    run(study, 2)
    dead = study.ask()
    assert study.trials[dead.number].state == TrialState.RUNNING
    assert run(study, 3) == "last"
    assert study.trials[dead.number].state == TrialState.FAIL
    assert len(counted(study)) == 3


@pytest.mark.slow
def test_who_ends_earlier_leaves_the_decision_to_who_ends_last(folder):
    slow = start(folder, 6)
    assert slow.stdout.readline().strip() == "0"
    study = open_study("s", PARAMS, folder, 1)
    assert run(study, 2) == "others"
    assert len(counted(study)) == 2
    slow.kill()
    slow.wait()


def test_names_say_what_scores_depend_on():
    name = study_name("forest a+b", SPACE, {"rows": "1"})
    assert name == study_name("forest a+b", dict(SPACE), {"rows": "1"})
    assert name.startswith("forest a+b ")
    others = {
        study_name("forest a+b", {"x": FloatDistribution(-1, 1)}, {"rows": "1"}),
        study_name("forest a+b", {**SPACE, "y": FloatDistribution(-1, 2)}, {"rows": "1"}),
        study_name("forest a+b", SPACE, {"rows": "2"}),
    }
    assert name not in others and len(others) == 3


def test_storages(tmp_path):
    assert storage_url("postgresql://me@there/db", tmp_path) == "postgresql://me@there/db"
    assert storage_url("sqlite:///:memory:", tmp_path) == "sqlite:///:memory:"
    assert storage_url("sqlite:///a/b.db", tmp_path) == f"sqlite:///{tmp_path}/a/b.db"
    assert (tmp_path / "a").is_dir()
    for url in ("carrier-pigeon://here", "nonsense"):
        with pytest.raises(AnymodalError, match=r"tune\.storage") as caught:
            open_study("s", PARAMS.model_copy(update={"storage": url}), tmp_path, 1)
        assert "\n" not in str(caught.value)


def open_only(folder):
    open_study("s", PARAMS, folder, 1)


@pytest.mark.slow
def test_many_open_a_new_study_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    for place in range(2):
        workers = [
            context.Process(target=open_only, args=(tmp_path / str(place),)) for _ in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [worker.exitcode for worker in workers] == [0] * 4


def test_an_empty_study(study):
    assert winner(study) is None and trials_table(study).empty
    assert list(figures(study, 0)) == ["history"]
