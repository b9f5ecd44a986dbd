import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.classification import macro_f1
from anymodal.report.tables import (
    NO_CLASS,
    accuracy,
    answers,
    class_f1,
    confusion_counts,
    confusions,
    drawn_counts,
)

CLASSES = ("banjo", "flute", "piano")


def rows(*pairs, seed=0):
    table = pd.DataFrame(pairs, columns=["truth", "predicted"])
    return table.assign(seed=seed, system="MMT", regime="all", target="audio")


def test_counts_of_a_hand_made_table():
    table = rows(("banjo", "banjo"), ("banjo", "flute"), ("flute", "flute"), ("piano", "flute"))
    counts = confusion_counts(table, CLASSES)
    assert counts.to_numpy().tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert confusions(counts) == [("piano", "flute", 1, 1), ("banjo", "flute", 1, 2)]
    assert accuracy(table) == 0.5


def test_a_class_out_of_the_list_is_not_lost():
    counts = confusion_counts(rows(("banjo", "kazoo")), CLASSES)
    assert counts.at["banjo", "kazoo"] == 1
    assert list(counts.columns) == [*CLASSES, "kazoo"]


def test_no_rows():
    empty = rows().iloc[:0]
    assert confusion_counts(empty, CLASSES).to_numpy().sum() == 0
    assert confusions(confusion_counts(empty, CLASSES)) == []
    assert class_f1(empty, CLASSES).isna().all()
    assert np.isnan(accuracy(empty))
    assert answers(empty, "MMT", "all", "audio").empty


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES), st.integers(0, 2)),
        min_size=1,
        max_size=40,
    )
)
def test_tables_agree_with_counting_one_by_one(entries):
    table = pd.concat([rows((truth, said), seed=seed) for truth, said, seed in entries])
    counts = confusion_counts(table, CLASSES)
    for truth in CLASSES:
        for said in CLASSES:
            by_hand = sum(t == truth and s == said for t, s, _ in entries)
            assert counts.at[truth, said] == by_hand
    for _, wrong, count, total in confusions(counts):
        assert 0 < count <= total
        assert wrong in CLASSES


def test_class_f1_averages_to_macro_f1_where_every_class_occurs():
    truth = [*CLASSES, *CLASSES]
    said = ["banjo", "piano", "piano", "flute", "flute", "piano"]
    scores = class_f1(rows(*zip(truth, said, strict=True)), CLASSES)
    assert scores.mean() == pytest.approx(macro_f1(truth, said, CLASSES))


def test_class_f1_is_the_mean_over_seeds():
    table = pd.concat([rows(("banjo", "banjo"), seed=0), rows(("banjo", "flute"), seed=1)])
    assert class_f1(table, CLASSES)["banjo"] == 0.5


def line(instrument, modality, subset, split, taken):
    return {"instrument": instrument, "modality": modality, "subset": subset, "split": split,
            "wanted": None, "available": taken, "taken": taken, "note": ""}  # fmt: skip


def test_drawn_counts_follow_the_pipeline_and_drop_what_is_unused():
    account = [
        line("flute", "audio", "classification", "test", 3),
        line("flute", "audio", "translation", "train", 5),
        line("banjo", "audio", "translation", "train", 4),
        line("banjo", "image", "retrieval", "test", 0),
        line("banjo", "audio", "unused", "", 9),
        line(None, "audio", "translation", "train", 2),
    ]
    counts = drawn_counts(account)
    assert list(counts.columns) == [
        ("audio", "translation", "train"),
        ("audio", "classification", "test"),
    ]
    assert counts.loc["banjo"].tolist() == [4, 0]
    assert counts.loc[NO_CLASS].tolist() == [2, 0]


@pytest.mark.parametrize(
    "account", [[], [{"class": "banjo", "n": 3}], [line("a", "b", "c", "d", 1)]]
)
def test_an_account_that_is_not_understood_gives_no_table(account):
    assert drawn_counts(account).empty
