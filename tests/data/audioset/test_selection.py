"""Selection against a plain one-video-at-a-time reference, and what must hold of every plan."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.config.params import AudioSetParams
from anymodal.core.errors import AnymodalError
from anymodal.data.audioset import selection
from anymodal.data.audioset.lists import Problems, SegmentList
from anymodal.data.audioset.plan import (
    ACCOUNT_COLUMNS,
    Plan,
    read_plan,
    validate_plan,
    write_plan,
)
from anymodal.data.audioset.selection import ORDER, fractions, numbers, qualifying_mids, select
from anymodal.ontology.graph import TOP_LABELS, graded_labels, ontology
from anymodal.ontology.instruments import INSTRUMENTS, MIDS

Row = tuple[str, float, float, tuple[str, ...]]

MUSIC, INSTRUMENT, TOOLS, SINGING = TOP_LABELS
HAMMER, CHILD_SINGING, SPEECH = (
    ontology().mid(name) for name in ("Hammer", "Child singing", "Speech")
)
BASS_GUITAR, TIMPANI, CHANT = (ontology().mid(name) for name in ("Bass guitar", "Timpani", "Chant"))
CLASS_MIDS = [mid for mids in MIDS.values() for mid in mids]
OTHERS = [MUSIC, INSTRUMENT, TOOLS, SINGING, HAMMER, CHILD_SINGING, SPEECH, BASS_GUITAR, TIMPANI]


def listed(rows: list[Row]) -> SegmentList:
    """A list as `read_segments` gives it."""
    labels = [",".join(sorted(set(row[3]))) for row in rows]
    table = pd.DataFrame(
        {
            "video_id": pd.Series([row[0] for row in rows], dtype=str),
            "start_s": np.array([row[1] for row in rows], dtype=np.float64),
            "end_s": np.array([row[2] for row in rows], dtype=np.float64),
            "labels": pd.Categorical(labels, categories=sorted(set(labels))),
        }
    )
    return SegmentList(table, Problems(), len(rows))


def video(number: int) -> str:
    return f"v{number:09d}-"


def supply(per_class: int, others: int) -> list[Row]:
    """`per_class` videos of every class, and `others` that qualify and have none."""
    rows: list[Row] = [
        (video(100 * place + number), 30.0, 40.0, (MIDS[name][0], MUSIC))
        for place, name in enumerate(INSTRUMENTS)
        for number in range(per_class)
    ]
    return rows + [(video(10_000 + number), 0.0, 10.0, (CHANT, MUSIC)) for number in range(others)]


def small(**changes: float) -> AudioSetParams:
    values = {"translation": 20, "retrieval": 6, "per_class": 4, "reserve": 0.5} | changes
    return AudioSetParams.model_validate(values)


# ---- the plain reference ------------------------------------------------------------------------


def plain_number(seed: int, purpose: str, row: Row) -> int:
    return int(numbers(seed, purpose, np.array([f"{row[0]} {row[1]} {row[2]}"], dtype=object))[0])


def lies_under(mid: str, name: str) -> bool:
    """Whether a class has `name` among its ancestors, walking upwards."""
    parents = ontology().parents(mid)
    return any(ontology().name(parent) == name or lies_under(parent, name) for parent in parents)


def plain_qualifies(labels: tuple[str, ...]) -> bool:
    roots = ("Musical instrument", "Singing", "Tools")
    return any(
        lies_under(label, root) for label in labels for root in roots if label not in TOP_LABELS
    )


def plain_class(labels: tuple[str, ...]) -> str | None:
    classes = {name for name in INSTRUMENTS for mid in MIDS[name] if mid in labels}
    return classes.pop() if len(classes) == 1 else None


def plain_select(rows: list[Row], params: AudioSetParams, seed: int) -> list[tuple] | None:
    """(video, start, subset, role, class, rank, window in ms, frame in ms) of every row of the
    plan; None where the list is too short."""
    of_video: dict[str, Row] = {}
    for row in rows:
        if not plain_qualifies(row[3]) or row[2] - row[1] < 1:
            continue
        present = of_video.get(row[0])
        if present is None or plain_number(seed, "segment", row) < plain_number(
            seed, "segment", present
        ):
            of_video[row[0]] = row
    pool = list(of_video.values())
    drawn: list[tuple] = []

    def take(subset: str, role: str, name: str | None, wanted: int) -> bool:
        candidates = [row for row in pool if name is None or plain_class(row[3]) == name]
        candidates.sort(key=lambda row: plain_number(seed, subset, row))
        for rank, row in enumerate(candidates[:wanted]):
            pool.remove(row)
            begin, choices = round(row[1] * 1000), round((row[2] - row[1]) * 1000) - 999
            window = begin + int((plain_number(seed, "window", row) >> 11) / 2**53 * choices)
            frame = window + int((plain_number(seed, "frame", row) >> 11) / 2**53 * 1000)
            label = plain_class(row[3])
            drawn.append((row[0], row[1], subset, role, label, rank, window, frame))
        return len(candidates) >= wanted

    enough = True
    for name in INSTRUMENTS:
        enough &= take("classification", "wanted", name, params.per_class)
        take("classification", "reserve", name, math.ceil(params.reserve * params.per_class))
    enough &= take("retrieval", "wanted", None, params.retrieval)
    enough &= take("translation", "wanted", None, params.translation)
    take("retrieval", "reserve", None, math.ceil(params.reserve * params.retrieval))
    take("translation", "reserve", None, math.ceil(params.reserve * params.translation))
    return drawn if enough else None


def rows_of(plan: Plan) -> list[tuple]:
    table = plan.table.astype(object).where(plan.table.notna(), None)
    return list(
        zip(
            *(table[name] for name in ("video_id", "start_s", "subset", "role")),
            *(table[name] for name in ("instrument", "rank")),
            *((plan.table[name] * 1000).round().astype(int) for name in ("window_s", "frame_s")),
            strict=True,
        )
    )


# ---- random lists -------------------------------------------------------------------------------


@st.composite
def lists(draw: st.DrawFn) -> list[Row]:
    """Enough of every class for `small`, among all sorts of other segments."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    rows: dict[tuple[str, float, float], Row] = {}
    for row in supply(draw(st.integers(4, 8)), draw(st.integers(0, 40))):
        rows[row[:3]] = row
    for number in range(draw(st.integers(0, 120))):
        # few enough ids that several segments fall on one video
        name = video(rng.choice([number, rng.randrange(1800), 20_000 + rng.randrange(40)]))
        start = rng.choice([0.0, 10.0, 30.0, 12.345])
        end = start + rng.choice([10.0, 10.0, 8.5, 1.0, 0.9])
        labels = rng.sample(CLASS_MIDS, rng.choice([0, 1, 1, 2])) + rng.sample(OTHERS, 2)
        rows[name, start, end] = (name, start, end, tuple(sorted(labels)))
    shuffled = list(rows.values())
    rng.shuffle(shuffled)
    return shuffled


@settings(max_examples=8, deadline=None)
@given(lists(), st.integers(0, 5), st.integers(1, 40), st.sampled_from([0.0, 0.3, 2.0]))
def test_same_as_the_plain_reference(
    rows: list[Row], seed: int, translation: int, reserve: float
) -> None:
    params = small(translation=translation + 1, reserve=reserve)
    expected = plain_select(rows, params, seed)
    if expected is None:
        with pytest.raises(AnymodalError, match="too short"):
            select(listed(rows), params, seed)
    else:
        assert sorted(rows_of(select(listed(rows), params, seed))) == sorted(expected)


def assert_sums(plan: Plan) -> None:
    """The account adds up: over classes, over subsets, and to what the plan holds."""
    account = plan.account.set_index(["subset", "instrument"])
    columns = ["available", "taken", "reserve"]
    for subset in (*ORDER, "unused"):
        classes = account.loc[subset].drop(index="all")
        assert (classes[columns].sum() == account.loc[(subset, "all"), columns]).all()
    for name in (*INSTRUMENTS, "other", "all"):
        mine = account.xs(name, level="instrument")
        used = int(mine["taken"].sum() + mine["reserve"].sum())
        assert used == mine.loc["classification", "available"]
    assert account.loc[("classification", "all"), "available"] == plan.counts["videos"]
    for role, column in (("wanted", "taken"), ("reserve", "reserve")):
        mine = plan.table[plan.table["role"] == role]
        held = Counter(zip(mine["subset"], mine["instrument"].fillna("other"), strict=True))
        for (subset, name), count in account.drop(index="unused")[column].items():
            assert name == "all" or held[subset, name] == count


# ---- rules, by hand -----------------------------------------------------------------------------


def test_qualifying_labels_are_the_descendants() -> None:
    mids = qualifying_mids()
    for mid in ontology():
        under = any(lies_under(mid, root) for root in selection.ROOTS)
        assert (mid in mids) == (under and mid not in TOP_LABELS)
    assert len(mids) == 107
    assert {HAMMER, CHILD_SINGING, TIMPANI, *CLASS_MIDS} <= mids
    assert not mids & {MUSIC, INSTRUMENT, TOOLS, SINGING, SPEECH}
    # what qualifies has a label that counts for relevance
    assert all(graded_labels([mid, *TOP_LABELS]) == (mid,) for mid in mids)


def test_what_does_not_qualify_is_counted_and_left_out() -> None:
    extra: list[Row] = [
        ("AAAAAAAAAAA", 0.0, 10.0, (INSTRUMENT, MUSIC)),
        ("BBBBBBBBBBB", 0.0, 10.0, (TOOLS,)),
        ("CCCCCCCCCCC", 0.0, 10.0, (SPEECH,)),
        ("DDDDDDDDDDD", 0.0, 0.9, (HAMMER,)),
        ("EEEEEEEEEEE", 0.0, 1.0, (HAMMER,)),
        (video(0), 50.0, 60.0, (HAMMER,)),
    ]
    plan = select(listed([*supply(6, 27), *extra]), small(), 0)
    assert plan.counts == {
        "segments": 108 + 27 + 6,
        "qualified": 108 + 27 + 3,
        "long_enough": 108 + 27 + 2,
        "videos": 108 + 27 + 1,
    }
    ids = set(plan.table["video_id"])
    assert not ids & {"AAAAAAAAAAA", "BBBBBBBBBBB", "CCCCCCCCCCC", "DDDDDDDDDDD"}
    shortest = plan.table[plan.table["video_id"] == "EEEEEEEEEEE"]
    assert shortest["window_s"].tolist() == [0.0]


def test_sizes_splits_and_reserves() -> None:
    params = small(per_class=20, reserve=0.25, classification_test=0.1, classification_valid=0.15)
    plan = select(listed(supply(23, 60)), params, 0)
    table = plan.table
    cells = table.groupby(["subset", "role", "split"], dropna=False).size()
    assert {
        (*key[:2], key[2] if isinstance(key[2], str) else None): n for key, n in cells.items()
    } == {
        ("classification", "wanted", "test"): 18 * 2,
        ("classification", "wanted", "valid"): 18 * 3,
        ("classification", "wanted", "train"): 18 * 15,
        ("classification", "reserve", None): 18 * 3,
        ("retrieval", "wanted", "test"): 6,
        ("retrieval", "reserve", None): 2,
        ("translation", "wanted", "train"): 18,
        ("translation", "wanted", "valid"): 2,
        ("translation", "reserve", None): 5,
    }
    account = plan.account.set_index(["subset", "instrument"])
    assert account.loc[("classification", "banjo")].tolist() == [20, 23, 20, 3, "reserve 2 short"]
    assert account.loc[("classification", "all"), "wanted"] == 360
    assert account.loc[("classification", "all"), "note"] == "reserve 36 short"
    assert account.loc[("retrieval", "all")].tolist() == [6, 60, 6, 2, ""]
    assert account.loc[("translation", "all")].tolist() == [20, 54, 20, 5, ""]
    assert_sums(plan)
    assert account.loc[("unused", "all"), "taken"] == 60 - 33
    assert pd.isna(account.loc[("translation", "banjo"), "wanted"])


@pytest.mark.parametrize(("test", "valid"), [(0.01, 0.01), (0.9, 0.05), (0.05, 0.9), (0.49, 0.5)])
def test_no_split_is_empty(test: float, valid: float) -> None:
    params = small(per_class=3, classification_test=test, classification_valid=valid, translation=2)
    table = select(listed(supply(3, 10)), params, 0).table
    mine = table[table["role"] == "wanted"].groupby(["subset", "split"]).size()
    assert mine["classification"].to_dict() == {"test": 18, "train": 18, "valid": 18}
    assert mine["translation"].to_dict() == {"train": 1, "valid": 1}


def test_another_size_or_list_changes_little() -> None:
    rows = supply(30, 400)
    plan = select(listed(rows), small(), 1)
    much = set(select(listed(rows), small(reserve=0, translation=200), 1).table["video_id"])
    assert set(plan.table.loc[plan.table["role"] == "wanted", "video_id"]) <= much
    gone = plan.table["video_id"].iloc[0]
    again = select(listed([row for row in rows if row[0] != gone]), small(), 1)
    changed = set(plan.table["video_id"]) ^ set(again.table["video_id"])
    assert gone in changed and len(changed) <= 8
    common = plan.table.merge(again.table, on="video_id", suffixes=("", "_again"))
    assert (common["window_s"] == common["window_s_again"]).all()


# ---- short lists --------------------------------------------------------------------------------


def short_rows() -> list[Row]:
    """Five of every class but mandolin (3) and cello (4), and 20 others."""
    left_out = {video(100 * INSTRUMENTS.index("mandolin") + number) for number in (0, 1)}
    left_out.add(video(100 * INSTRUMENTS.index("cello")))
    return [row for row in supply(5, 20) if row[0] not in left_out]


def test_shortage_names_every_class_with_its_numbers() -> None:
    params = small(per_class=5, translation=1000, retrieval=500, reserve=0)
    with pytest.raises(AnymodalError) as error:
        select(listed(short_rows()), params, 0)
    text = str(error.value)
    assert "cello 4 of 5, mandolin 3 of 5, retrieval and translation 53 of 1,500" in text
    assert "banjo" not in text and "\n" not in text


def test_allow_short_keeps_classes_balanced_and_shares_the_rest() -> None:
    params = small(per_class=5, translation=1000, retrieval=500, reserve=0.4)
    plan = select(listed(short_rows()), params, 0, allow_short=True)
    account = plan.account.set_index(["subset", "instrument"])
    assert (account.loc["classification"].loc[list(INSTRUMENTS), "taken"] == 3).all()
    assert account.loc[("classification", "mandolin")].tolist() == [
        *(5, 3, 3, 0),
        "2 short; reserve 2 short",
    ]
    # 87 less 18 × 3, less reserves of 2 (cello 1, mandolin 0): 20 and nothing are left
    assert account.loc[("classification", "all"), "reserve"] == 33
    assert account.loc[("retrieval", "all"), "taken"] == 6
    assert account.loc[("translation", "all"), "taken"] == 14
    assert account.loc[("translation", "all"), "note"] == "986 short; reserve 400 short"
    assert account.loc[("unused", "all"), "taken"] == 0
    assert_sums(plan)


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([], "classification, retrieval, translation"),
        ([row for row in supply(5, 20) if MIDS["flute"][0] not in row[3]], "classification"),
        (supply(2, 20), "classification"),
        (supply(4, 0), "retrieval, translation"),
        (supply(4, 2), "retrieval"),
    ],
    ids=["no row", "no flute", "two a class", "classes only", "two others"],
)
def test_too_little_even_for_a_short_selection(rows: list[Row], name: str) -> None:
    with pytest.raises(AnymodalError, match=f"leave too little for {name}: "):
        select(listed(rows), small(reserve=0), 0, allow_short=True)
    with pytest.raises(AnymodalError, match="too short"):
        select(listed(rows), small(reserve=0), 0)


# ---- random numbers -----------------------------------------------------------------------------


def test_fractions_are_uniform_and_independent() -> None:
    count = 20_000
    names = np.array([f"{video(number)} 0.0 10.0" for number in range(count)], dtype=object)
    first, second = fractions(0, "window", names), fractions(0, "frame", names)
    for values in (first, second):
        assert values.min() >= 0 and values.max() < 1
        histogram = np.histogram(values, bins=20, range=(0, 1))[0]
        assert (abs(histogram - count / 20) < 5 * math.sqrt(count / 20)).all()
    for one, other in ((first, second), (first[1:], first[:-1])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(count)
    # the same on every machine and with every version of pandas: plans are drawn from them
    assert numbers(0, "window", names[:2]).tolist() == [
        9914750307325020219,
        12952360024263864358,
    ]


# ---- the plan as a file -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan() -> Plan:
    return select(listed(supply(6, 40)), small(), 0)


def test_plan_survives_a_file(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "folder" / "plan.parquet"
    write_plan(path, plan)
    again = read_plan(path)
    pd.testing.assert_frame_equal(again.table, plan.table)
    pd.testing.assert_frame_equal(again.account, plan.account)
    assert again.counts == plan.counts
    assert tuple(plan.account.columns) == ACCOUNT_COLUMNS
    assert [each.name for each in path.parent.iterdir()] == ["plan.parquet"]
    content = pq.read_table(path)
    earlier = [name.replace("window_s", "moment_s") for name in content.column_names]
    renamed = content.rename_columns(earlier)
    pq.write_table(renamed.replace_schema_metadata(content.schema.metadata), path)
    pd.testing.assert_frame_equal(read_plan(path).table, plan.table)


DAMAGE = {
    "lacks the column.s. window_s": lambda t: t.drop(columns="window_s"),
    "has no rank": lambda t: t.assign(rank=t["rank"].where(t.index > 0)),
    "in the plan twice": lambda t: t.assign(
        video_id=t["video_id"].where(t.index > 0, "AAAAAAAAAAA")
    ).pipe(lambda u: u.assign(video_id=u["video_id"].where(u.index != 1, "AAAAAAAAAAA"))),
    "has a subset other": lambda t: t.assign(subset="training"),
    "has a role other": lambda t: t.assign(role="spare"),
    "has no split of": lambda t: t.assign(split=None),
    "is a reserve and has": lambda t: t.assign(split="train"),
    "is for classification": lambda t: t.assign(instrument=None),
    "instrument other than": lambda t: t.assign(
        instrument=t["instrument"].replace("banjo", "cello")
    ),
    "window outside": lambda t: t.assign(window_s=t["end_s"] - 0.5),
    "frame outside": lambda t: t.assign(frame_s=t["window_s"] + 1.5),
    "rank that repeats": lambda t: t.assign(rank=0),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_plan_is_refused(plan: Plan, message: str) -> None:
    with pytest.raises(AnymodalError, match=message):
        validate_plan(DAMAGE[message](plan.table))


def test_files_that_are_no_plan(tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "plan.parquet"
    with pytest.raises(AnymodalError, match="no plan at"):
        read_plan(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(AnymodalError, match="is not a plan"):
        read_plan(path)
    write_plan(path, plan)
    content = pq.read_table(path)
    for metadata in ({}, {b"anymodal.plan": b"[1]"}):
        pq.write_table(content.replace_schema_metadata(metadata), path)
        with pytest.raises(AnymodalError, match="is not a plan"):
            read_plan(path)
    pq.write_table(content.drop_columns("split"), path)
    with pytest.raises(AnymodalError, match=r"lacks the column\(s\) split"):
        read_plan(path)
