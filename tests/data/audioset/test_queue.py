"""Which reserve replaces which dead clip."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.data.audioset.queue import FetchQueue, places, rows_of
from anymodal.data.audioset.status import DEAD, Status
from helpers.fetch_plans import make_plan


def names(count: int, prefix: str) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def small_plan():
    return make_plan(
        ("classification", "flute", {"test": ["f0"], "train": ["f1", "f2"]}, ["F0", "F1", "F2"]),
        ("classification", "violin", {"test": ["v0"], "train": ["v1"]}, ["V0"]),
        ("retrieval", None, {"test": ["r0", "r1"]}, ["R0"]),
        ("translation", None, {"valid": ["t0"], "train": ["t1"]}, []),
    )


def holders(plan, statuses):
    return {
        wanted.video_id: holder.video_id if holder else None
        for wanted, holder in places(rows_of(plan), lambda row: statuses.get(row.video_id))
    }


def test_rows_keep_what_the_plan_says():
    rows = rows_of(small_plan())
    assert [getattr(rows[0], name) for name in ("video_id", "subset", "instrument", "split")] == [
        "f0", "classification", "flute", "test",
    ]  # fmt: skip
    assert rows[0].key == "f0@2200+400"
    assert (rows[3].role, rows[3].split) == ("reserve", None)
    assert rows[-1].instrument is None
    assert rows_of(small_plan().iloc[:0]) == []
    assert len(FetchQueue([], lambda row: None)) == 0


def test_replacements_come_by_rank_from_the_same_pool():
    dead = dict.fromkeys(["f0", "f2", "F1", "v0", "v1", "r1", "R0", "t0"], Status.GONE)
    assert holders(small_plan(), dead | {"r0": Status.FAILED}) == {
        "f0": "F0", "f1": "f1", "f2": "F2",
        "v0": "V0", "v1": None,
        "r0": "r0", "r1": None,
        "t0": None, "t1": "t1",
    }  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_order_in_which_deaths_are_found_does_not_matter(data):
    wanted, reserve = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 6))
    plan = make_plan(("retrieval", None, {"test": names(wanted, "w")}, names(reserve, "r")))
    everyone = names(wanted, "w") + names(reserve, "r")
    fate = {
        name: data.draw(st.sampled_from([Status.DONE, Status.GONE, Status.BROKEN]))
        for name in everyone
    }
    known = {name: fate[name] for name in everyone if data.draw(st.booleans())}
    rows = rows_of(plan)
    queue = FetchQueue(rows, lambda row: known.get(row.video_id))
    flying, tried = [], []
    while len(queue) or flying:
        if len(queue) and (not flying or data.draw(st.booleans())):
            flying.append(queue.next())
            continue
        row = flying.pop(data.draw(st.integers(0, len(flying) - 1)))
        tried.append(row.video_id)
        known[row.video_id] = fate[row.video_id]
        if fate[row.video_id] in DEAD:
            queue.replace(row)
    assert len(set(tried)) == len(tried)

    living = [name for name in names(reserve, "r") if fate[name] not in DEAD]
    dead = [name for name in names(wanted, "w") if fate[name] in DEAD]
    expected = {name: name for name in names(wanted, "w")}
    expected |= dict(zip(dead, [*living, *[None] * len(dead)], strict=False))
    assert holders(plan, known) == expected
    # and nobody beyond the last one needed was tried for nothing
    needed = [name for name in expected.values() if name and name.startswith("r")]
    assert [name for name in tried if name.startswith("r") and name in living] == [
        name for name in tried if name in needed
    ]
