import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.classification import evaluate, summarise
from anymodal.evaluation.forests import ForestSettings, LabelledFeatures, fit_forest, macro_f1

CLASSES = ("banjo", "flute", "piano")
SMALL = ForestSettings(trees=5, max_depth=4)
MEDIUM = ForestSettings(trees=10, max_depth=8)


def rows(generator, centres, per_class, spread=0.05):
    instruments = np.repeat(CLASSES, per_class)
    features = np.repeat(centres, per_class, axis=0)
    features = features + spread * generator.standard_normal(features.shape)
    ids = np.array([f"{name}-{i}" for i, name in enumerate(instruments)])
    return LabelledFeatures(features.astype(np.float32), instruments, ids)


def tables(generator, audio_centres, image_centres):
    return {
        split: {
            "audio": rows(generator, audio_centres, count),
            "image": rows(generator, image_centres, count),
        }
        for split, count in (("train", 20), ("test", 10))
    }


def slow_macro_f1(truth, predicted, classes):
    scores = []
    for name in classes:
        hits = sum(t == name and p == name for t, p in zip(truth, predicted, strict=True))
        total = sum(p == name for p in predicted) + sum(t == name for t in truth)
        scores.append(2 * hits / total if total else 0.0)
    return sum(scores) / len(scores)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=30)
)
def test_macro_f1_is_the_mean_of_the_classes_f1(answers):
    truth, predicted = zip(*answers, strict=True)
    expected = slow_macro_f1(truth, predicted, CLASSES)
    assert macro_f1(truth, predicted, CLASSES) == pytest.approx(expected)


def test_macro_f1_of_perfect_wrong_and_no_answers():
    assert macro_f1(CLASSES, CLASSES, CLASSES) == 1.0
    assert macro_f1(CLASSES, ("flute", "piano", "banjo"), CLASSES) == 0.0
    assert macro_f1((), (), CLASSES) == 0.0


def test_shared_space_carries_labels_across_modalities_and_separate_spaces_do_not():
    generator = np.random.default_rng(0)
    shared = np.eye(3, 4)
    # the image classes sit where no audio class is: rotated by one, so zero-shot is always wrong
    translated = tables(generator, shared, shared)
    reduced = tables(generator, shared, np.roll(shared, 1, axis=0))
    outcomes = evaluate(translated, reduced, ForestSettings(trees=20, max_depth=8), 3)[0]
    scores = {(o.system, o.regime, o.target): o.macro_f1 for o in outcomes}
    for target in ("audio", "image"):
        assert scores["MMT", "zero-shot", target] == 1.0
        assert scores["MMT", "all", target] == 1.0
        assert scores["MMP", "zero-shot", target] == 0.0
    assert scores["SMA", "all", "audio"] == scores["SMI", "all", "image"] == 1.0
    assert len(outcomes) == 10


def test_the_forest_handed_back_is_the_one_that_was_tested():
    generator = np.random.default_rng(7)
    table = tables(generator, np.eye(3, 4), np.eye(3, 4))
    outcomes, forest = evaluate(table, table, SMALL, 1)
    for outcome in outcomes:
        if (outcome.system, outcome.regime) == ("MMT", "all"):
            again = forest.predict(table["test"][outcome.target].features)
            assert list(again) == outcome.predictions["predicted"].to_list()


def test_zero_shot_sees_no_row_of_its_target():
    generator = np.random.default_rng(1)
    table = tables(generator, np.eye(3, 4), np.eye(3, 4))
    for outcome in evaluate(table, table, SMALL, 0)[0]:
        if outcome.regime == "zero-shot":
            assert outcome.train_rows == 60 and outcome.train_rows_of_target == 0
        elif outcome.system.startswith("MM"):
            assert outcome.train_rows == 120 and outcome.train_rows_of_target == 60
        else:
            assert outcome.train_rows == outcome.train_rows_of_target == 60


def test_same_seed_same_forest_whatever_the_workers():
    part = rows(np.random.default_rng(2), np.eye(3, 4), 30, spread=0.8)
    one = fit_forest([part], MEDIUM, 5, workers=1).predict_proba(part.features)
    two = fit_forest([part], MEDIUM, 5, workers=2).predict_proba(part.features)
    other = fit_forest([part], MEDIUM, 6, workers=1).predict_proba(part.features)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_summary_gives_spread_chance_and_counts():
    generator = np.random.default_rng(4)
    table = tables(generator, np.eye(3, 4), np.eye(3, 4))
    outcomes = [o for seed in range(3) for o in evaluate(table, table, SMALL, seed)[0]]
    summary = summarise(outcomes)
    assert len(summary) == 10
    for score in summary:
        assert (score.seeds, score.test_rows, score.classes) == (3, 30, 3)
        assert score.chance == pytest.approx(1 / 3)
        own = [o.macro_f1 for o in outcomes if (o.system, o.regime, o.target) == score.key]
        assert (score.mean, score.std) == pytest.approx((np.mean(own), np.std(own, ddof=1)))
        assert (score.min, score.max) == (min(own), max(own))
    assert summarise([]) == ()


def test_bad_features_are_refused():
    with pytest.raises(AnymodalError, match="same rows"):
        LabelledFeatures(np.zeros((2, 3)), np.array(["a"]), np.array(["x", "y"]))
    with pytest.raises(AnymodalError, match="NaN"):
        LabelledFeatures(np.full((1, 3), np.nan), np.array(["a"]), np.array(["x"]))
    empty = LabelledFeatures(np.empty((0, 3)), np.empty(0, str), np.empty(0, str))
    with pytest.raises(AnymodalError, match="no labelled training rows"):
        fit_forest([empty], SMALL, 0)
