from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.app.label_layout import LETTER, LINE, Box, spread


def boxes(names, middles, side):
    return [
        Box(*(side * middle), LETTER * len(name), LINE - 1)
        for name, middle in zip(names, middles, strict=True)
    ]


def overlap(one, two):
    return (
        abs(one.x - two.x) < (one.width + two.width) / 2
        and abs(one.y - two.y) < (one.height + two.height) / 2
    )


@pytest.mark.parametrize("side", [300, 343, 800])
def test_ten_names_on_one_spot_do_not_overlap_at_any_width(side):
    names = [f"instrument {n}" for n in range(10)]
    found = boxes(names, spread(names, np.full((10, 2), 0.5), 300.0), side)
    assert not any(overlap(one, two) for one, two in combinations(found, 2))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_names_stay_inside(anchors):
    names = [f"name {n}" for n in range(len(anchors))]
    for box in boxes(names, spread(names, np.array(anchors), 300.0), 300.0):
        assert box.width / 2 <= box.x <= 300 - box.width / 2
        assert box.height / 2 <= box.y <= 300 - box.height / 2


def test_a_name_alone_stays_where_it_belongs_and_leaves_what_is_taken():
    alone = spread(["piano"], np.array([[0.4, 0.6]]), 300.0)
    assert np.allclose(alone, [[0.4, 0.6]])
    taken = Box(120, 180, 60, 40)
    moved = spread(["piano"], np.array([[0.4, 0.6]]), 300.0, [taken])
    assert not overlap(boxes(["piano"], moved, 300.0)[0], taken)


def test_a_name_does_not_stand_on_anothers_place():
    middles = spread(["trumpet", "violin"], np.array([[0.5, 0.5], [0.53, 0.5]]), 300.0) * 300
    (first, _) = boxes(["trumpet", "violin"], middles / 300, 300.0)
    assert not (abs(159 - first.x) < first.width / 2 and abs(150 - first.y) < first.height / 2)


def test_a_name_wider_than_the_map_and_no_name_at_all():
    assert spread(["n" * 90], np.array([[0.5, 0.5]]), 300.0).shape == (1, 2)
    assert spread([], np.empty((0, 2)), 300.0).shape == (0, 2)
