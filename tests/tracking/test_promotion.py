"""Which model becomes champion, and when a gain counts."""

import itertools

import numpy as np
import pandas as pd
import pytest

from anymodal.config.params import Params
from anymodal.evaluation.forests import macro_f1
from anymodal.evaluation.statistics import macro_f1_score, mean_score
from anymodal.tracking import registry, store
from anymodal.tracking.promotion import Decision, ValidationScores, decide, gain, mean_score_of
from anymodal.tracking.runs import stage_run

CLASSES = ["banjo", "flute"]


def scores(right, rows=40, measure="macro F1", **context):
    """Answers of which the share `right` is right, the same rows every time."""
    truth = np.array(CLASSES * (rows // 2))
    wrong = np.where(truth == "banjo", "flute", "banjo")
    table = [
        pd.DataFrame(
            {
                "clip_id": [f"{modality}{i}" for i in range(rows)],
                "group": [f"{modality}{i // 2}" for i in range(rows)],
                "modality": modality,
                "truth": truth,
                "predicted": np.where(np.arange(rows) < right * rows, truth, wrong),
            }
        )
        for modality in ("audio", "image")
    ]
    same = {"dataset": "toy", "pairing": "class", "classes": CLASSES, **context}
    return ValidationScores(measure, same, pd.concat(table, ignore_index=True))


def test_score_is_the_mean_over_modalities():
    made = scores(0.75)
    rows = made.rows
    expected = [
        macro_f1(own["truth"], own["predicted"], CLASSES) for _, own in rows.groupby("modality")
    ]
    assert made.score.value == pytest.approx(np.mean(expected))
    shuffled = ValidationScores(made.measure, made.context, rows.sample(frac=1, random_state=0))
    assert shuffled.score.value == pytest.approx(made.score.value)
    assert shuffled.differs(made) is None
    again = ValidationScores.from_dict(made.as_dict())
    assert again.differs(made) is None and again.score.value == made.score.value


def test_the_mean_weighs_parts_alike_and_keeps_their_items_apart():
    long, short = mean_score(np.arange(8.0)), mean_score([10.0])
    both = mean_score_of([long, short], ["a", "b"])
    assert both.value == pytest.approx((3.5 + 10) / 2)
    assert len(both.terms) == 9 and both.strata[0] != both.strata[8]
    seeds = mean_score_of([mean_score(np.ones((3, 4))), mean_score(np.zeros((3, 2)))], ["a", "a"])
    assert seeds.seeds == 3 and seeds.value == 0.5


def test_a_gain_within_the_noise_is_none_and_a_large_one_is():
    rng = np.random.default_rng(0)
    truth = np.array(CLASSES * 30)
    groups = np.repeat(np.arange(30), 2).astype(str)

    def answers(share):
        wrong = rng.random(60) > share
        flipped = np.where(truth == "banjo", "flute", "banjo")
        return macro_f1_score(truth, np.where(wrong, flipped, truth), CLASSES)

    close = gain(answers(0.80), answers(0.78), groups)
    assert close.interval.low < close.value < close.interval.high
    assert not close.beats()
    clear = gain(answers(0.98), answers(0.5), groups)
    assert clear.beats() and not clear.beats(threshold=0.9)


def test_no_better_newcomers_rarely_win():
    wins = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        # seeds differ, and so do rows; the two sides are alike
        rows = 0.7 + 0.1 * rng.normal(size=(1, 40))
        new, old = (
            mean_score(rows + 0.1 * rng.normal(size=(6, 40)) + 0.02 * rng.normal(size=(6, 1)))
            for _ in range(2)
        )
        wins += gain(new, old, np.arange(40).astype(str), seed=trial).beats()
    # one in forty, and what chance makes of it
    assert wins <= 8


def test_without_groups_to_exchange_nothing_is_known():
    one = mean_score([0.9, 0.9])
    found = gain(one, mean_score([0.1, 0.1]), ["a", "a"])
    assert found.interval is None and not found.beats()
    assert "unknown" in str(found)


CASES = [
    ("no champion", scores(0.5), None, False, True, "no champion"),
    ("better", scores(1.0), scores(0.6), True, True, "better by more"),
    ("equal", scores(0.8), scores(0.8), True, False, "not better"),
    ("worse", scores(0.6), scores(1.0), True, False, "not better"),
    ("a little better", scores(0.825), scores(0.8), True, False, "not better"),
    ("other data", scores(0.5), scores(1.0, dataset="b"), True, True, "another dataset"),
    ("other pairing", scores(0.5), scores(1.0, pairing="clip"), True, True, "another pairing"),
    ("other rows", scores(0.5), scores(1.0, rows=38), True, True, "other validation rows"),
    ("other measure", scores(0.5), scores(1.0, measure="NDCG"), True, True, "scored by NDCG"),
    ("no scores", scores(0.5), None, True, True, "has no validation scores"),
    ("none at all", None, scores(0.9), True, True, "has no validation scores"),
]


@pytest.mark.parametrize(("new", "old", "exists", "moves", "why"), [c[1:] for c in CASES],
                         ids=[c[0] for c in CASES])  # fmt: skip
def test_decisions(new, old, exists, moves, why):
    decision = decide(new, old, exists)
    assert decision.moves is moves
    assert why in decision.reason
    assert why in decision.tags()["champion_decision"]
    assert ("champion_gain" in decision.tags()) == (decision.gain is not None)


def test_classes_of_another_project_are_no_rival():
    assert decide(scores(0.9), scores(0.95, classes=["banjo", "flute", "oboe"])).moves


@pytest.mark.slow
def test_the_alias_moves_only_for_more_than_the_noise(store_folder):
    """Versions as `register_classifier` leaves them, without the minutes that packing takes."""
    params = Params()
    client = store.connect(params.tracking).MlflowClient()
    client.create_registered_model("m")
    numbers = itertools.count(1)

    def register(made, decision=None):
        with stage_run("classify", params, None) as run:
            if made is not None:
                run.log_json(made.as_dict(), registry.validation_scores_path("m"))
            number = client.create_model_version("m", "somewhere", run_id=run.run_id).version
            assert int(number) == next(numbers)
            decided = registry.promote("m", number, made, params.tracking, run, decision)
        of_run = client.get_run(run.run_id).data.tags
        tags = client.get_model_version("m", number).tags
        assert tags["champion_decision"] == of_run["m.champion_decision"]
        return decided, tags

    def champion():
        return str(client.get_model_version_by_alias("m", "champion").version)

    assert register(scores(0.8))[0].reason == "there was no champion"
    found, tags = register(scores(0.825))
    assert not found.moves and champion() == "1"
    assert tags["champion_decision"].startswith("kept out: not better")
    assert tags["champion_before"] == "1" and float(tags["champion_gain"]) > 0
    register(scores(1.0))
    assert champion() == "3"
    register(scores(0.9))
    assert champion() == "3"
    register(scores(0.6, dataset="other"))
    assert champion() == "5"
    register(None)
    assert champion() == "6"
    with stage_run("classify", params, None) as run:
        again = registry.promote("m", "6", None, params.tracking, run)
    assert again.reason == "it is the champion already"
    register(scores(0.5), Decision(True, "its parameters won"))
    assert champion() == "7"
    client.delete_registered_model_alias("m", "champion")
    assert register(scores(0.4))[0].reason == "there was no champion"
