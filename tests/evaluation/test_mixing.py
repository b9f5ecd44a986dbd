"""The mixing curve: balance, nesting, and every point against a plain loop over scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.forests import ForestSettings, LabelledFeatures
from anymodal.evaluation.mixing import Fit, balanced_order, plan, score_all, summarise_curve

FORESTS, SEED = ForestSettings(trees=8, max_depth=6), 3
CLASSES = ("banjo", "flute", "piano")


def rows(count: int, seed: int, shift: float = 0.0) -> LabelledFeatures:
    """Rows of three classes that overlap; another modality lies elsewhere."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % len(CLASSES)
    features = rng.normal(size=(count, 4)).astype(np.float32) + shift
    features[:, 0] += 1.5 * codes
    return LabelledFeatures(
        features, np.array(CLASSES)[codes], np.array([f"{seed}-{i}" for i in range(count)])
    )


def splits(seed: int) -> dict:
    return {
        "train": {"audio": rows(24, seed), "image": rows(15, seed + 1, 2.0)},
        "test": {"audio": rows(12, seed + 2), "image": rows(12, seed + 3, 2.0)},
    }


def test_plan_ends_with_all_rows_and_holds_each_forest_once():
    fits = plan([0, 10, 20, 500], 2, {"audio": 24, "image": 15})
    assert len(set(fits)) == len(fits)
    by_target = {
        target: sorted({f.samples for f in fits if f.target == target})
        for target in ("audio", "image")
    }
    assert by_target == {"audio": [0, 10, 20, 24], "image": [0, 10, 15]}
    assert {(f.system, f.draw) for f in fits} == {(s, d) for s in ("MMT", "MMP") for d in (0, 1)}
    assert [f.samples for f in plan([], 1, {"audio": 0, "image": 0})] == [0, 0, 0, 0]


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_every_beginning_is_balanced(counts, seed):
    names = np.repeat([f"class {i}" for i in range(len(counts))], counts)
    order = balanced_order(names, seed)
    assert sorted(order.tolist()) == list(range(len(names)))
    for size in range(len(names) + 1):
        taken = {f"class {i}": 0 for i in range(len(counts))}
        for row in order[:size]:
            taken[names[row]] += 1
        open_classes = [
            taken[f"class {i}"] for i, n in enumerate(counts) if taken[f"class {i}"] < n
        ]
        most = max(taken.values(), default=0)
        assert all(most - n <= 1 for n in open_classes)


def test_orders_differ_by_seed_and_repeat():
    names = np.repeat(["a", "b"], 30)
    np.testing.assert_array_equal(balanced_order(names, 1), balanced_order(names, 1))
    assert (balanced_order(names, 1) != balanced_order(names, 2)).any()
    # the class that comes first is a matter of chance
    assert {names[balanced_order(names, seed)[0]] for seed in range(20)} == {"a", "b"}


def test_scores_are_those_of_a_plain_loop():
    translated, reduced = [splits(10), splits(20)], splits(30)
    fits = plan([0, 5], 3, {"audio": 24, "image": 15})
    got = dict(score_all(fits, translated, reduced, FORESTS, SEED, workers=2))
    assert set(got) == set(fits)
    assert dict(score_all(fits, translated, reduced, FORESTS, SEED, workers=1)) == got
    for fit, score in got.items():
        features = reduced if fit.system == "MMP" else translated[fit.draw % 2]
        other = "image" if fit.target == "audio" else "audio"
        place = ("audio", "image").index(fit.target)
        names = features["train"][fit.target].instruments
        chosen = balanced_order(names, SEED + fit.draw * 2 + place)[: fit.samples]
        x = np.vstack([features["train"][other].features,
                       features["train"][fit.target].features[chosen]])  # fmt: skip
        y = np.concatenate([features["train"][other].instruments, names[chosen]])
        forest = RandomForestClassifier(
            FORESTS.trees, max_depth=FORESTS.max_depth, random_state=SEED + fit.draw
        ).fit(x, y)
        test = features["test"][fit.target]
        expected = f1_score(
            test.instruments, forest.predict(test.features), labels=CLASSES, average="macro",
            zero_division=0,
        )  # fmt: skip
        assert score == pytest.approx(expected), fit


def test_a_part_of_the_curve_has_the_scores_of_the_whole():
    translated, reduced = [splits(10), splits(20)], splits(30)
    fits = plan([0, 5], 2, {"audio": 24, "image": 15})
    whole = dict(score_all(fits, translated, reduced, FORESTS, SEED))
    part = fits[3::2]
    assert dict(score_all(part, translated, reduced, FORESTS, SEED)) == {
        fit: whole[fit] for fit in part
    }
    assert list(score_all([], translated, reduced, FORESTS, SEED)) == []


def test_no_test_rows_score_0():
    empty = splits(10)
    empty["test"]["audio"] = rows(0, 1)
    ((_, score),) = score_all([Fit("MMP", "audio", 0, 0)], [empty], empty, FORESTS, SEED)
    assert score == 0.0


def test_forests_of_another_library_are_as_good():
    pytest.importorskip("sklearnex", reason="scikit-learn-intelex is not installed")
    features = splits(0)
    fits = plan([], 3, {"audio": 24, "image": 15})
    mean = {}
    for library in ("scikit-learn", "scikit-learn-intelex"):
        forests = ForestSettings(trees=60, max_depth=6, library=library)
        scored = score_all(fits, [features], features, forests, SEED)
        mean[library] = np.mean([score for _, score in scored])
    assert mean["scikit-learn-intelex"] == pytest.approx(mean["scikit-learn"], abs=0.1)


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearnex", None)
    monkeypatch.setitem(sys.modules, "sklearnex.ensemble", None)
    forests = FORESTS.model_copy(update={"library": "scikit-learn-intelex"})
    with pytest.raises(AnymodalError, match=r"anymodal\[intelex\]"):
        list(
            score_all(
                plan([], 1, {"audio": 24, "image": 15}), [splits(0)], splits(0), forests, SEED
            )
        )


def test_points_are_means_over_draws():
    fits = [Fit("MMT", "audio", samples, draw) for samples in (0, 5) for draw in range(3)]
    curve = pd.DataFrame(fits).assign(macro_f1=[0.0, 0.5, 1.0, 0.2, 0.2, 0.2])
    first, second = summarise_curve(curve)
    assert (first.samples, first.mean, first.std, first.draws) == (0, 0.5, 0.5, 3)
    assert (second.mean, second.std, second.min, second.max) == pytest.approx((0.2, 0, 0.2, 0.2))
