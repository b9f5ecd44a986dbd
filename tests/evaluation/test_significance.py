"""Intervals, tests and shares of a table of predictions, against the kernels on plain arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from anymodal.evaluation.forests import macro_f1
from anymodal.evaluation.resampling import Resampling
from anymodal.evaluation.significance import by_seed, comparisons, intervals, zero_shot_shares
from anymodal.evaluation.statistics import holm, paired_difference

CLASSES = ("banjo", "flute", "piano")
HOW = Resampling(replicates=300)
SKILL = {
    ("MMT", "zero-shot"): 0.8, ("MMP", "zero-shot"): 0.1, ("SMA", "all"): 0.6,
    ("MMT", "all"): 0.8, ("MMP", "all"): 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def table():
    """Two windows of each of 30 recordings, three seeds, rows in no order."""
    rng = np.random.default_rng(0)
    truth = np.tile(CLASSES, 20)
    frames = []
    for (system, regime), level in SKILL.items():
        for seed in range(3):
            right = rng.random(60) < level
            other = np.roll(CLASSES, -1)[np.arange(60) % 3]
            frames.append(
                pd.DataFrame(
                    {
                        "clip_id": [f"clip-{i}" for i in range(60)], "truth": truth,
                        "predicted": np.where(right, truth, other), "system": system,
                        "regime": regime, "target": "audio", "seed": seed,
                    }
                )
            )  # fmt: skip
    return pd.concat(frames).sample(frac=1, random_state=1)


GROUPS = {f"clip-{i}": f"take-{i // 6}-{i % 3}" for i in range(60)}


def test_intervals_hold_the_mean_over_seeds(table):
    measured = {(i.system, i.regime): i for i in intervals(table, CLASSES, GROUPS, HOW)}
    assert set(measured) == set(SKILL)
    for (system, regime), interval in measured.items():
        rows = table[(table["system"] == system) & (table["regime"] == regime)]
        scores = [
            macro_f1(of_seed["truth"], of_seed["predicted"], CLASSES)
            for _, of_seed in rows.groupby("seed")
        ]
        assert interval.macro_f1 == pytest.approx(np.mean(scores))
        assert interval.low <= interval.macro_f1 <= interval.high
        assert interval.groups == 30 and interval.target == "audio"


def test_comparisons_are_the_papers_with_adjusted_p(table):
    tests = comparisons(table, CLASSES, GROUPS, HOW)
    assert [(test.first, test.second) for test in tests] == [
        (("MMT", "zero-shot"), ("MMP", "zero-shot")),
        (("MMT", "zero-shot"), ("SMA", "all")),
        (("MMT", "zero-shot"), ("MMT", "all")),
        (("MMT", "all"), ("MMP", "all")),
        (("MMT", "all"), ("SMA", "all")),
    ]
    np.testing.assert_allclose(
        [test.p_holm for test in tests], holm([test.p_value for test in tests])
    )
    first = table[(table["system"] == "MMT") & (table["regime"] == "zero-shot")]
    second = table[(table["system"] == "SMA")]
    clips, truth, answers = by_seed(first)
    direct = paired_difference(
        truth, answers, by_seed(second)[2], CLASSES, [GROUPS[c] for c in clips], HOW
    )
    assert tests[1].difference == pytest.approx(direct.difference)
    assert (tests[1].low, tests[1].high) == pytest.approx((direct.low, direct.high))
    assert tests[0].p_value < 0.01


def test_zero_shot_share_is_of_the_best_that_saw_labels(table):
    (share,) = zero_shot_shares(table, CLASSES, GROUPS, HOW).values()
    assert share.best_system == "MMT"
    assert share.share == pytest.approx(share.zero_shot / share.best)
    assert share.low <= share.share <= share.high


def test_clips_stay_together_whatever_the_order_of_rows(table):
    rows = table[(table["system"] == "MMT") & (table["regime"] == "all")]
    clips, truth, answers = by_seed(rows)
    assert answers.shape == (3, 60) and clips.tolist() == sorted(clips)
    for seed in range(3):
        of_seed = rows[rows["seed"] == seed].set_index("clip_id")
        assert (of_seed.loc[clips, "predicted"].to_numpy() == answers[seed]).all()
        assert (of_seed.loc[clips, "truth"].to_numpy() == truth).all()


def test_no_predictions_no_claims(table):
    nothing = table.iloc[:0]
    assert intervals(nothing, CLASSES, GROUPS) == ()
    assert comparisons(nothing, CLASSES, GROUPS) == ()
    assert zero_shot_shares(nothing, CLASSES, GROUPS) == {}
