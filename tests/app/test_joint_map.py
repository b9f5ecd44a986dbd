import json
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.app.joint_map import CLIPS, COLOURS, CROSSHAIR, LETTER, LINE, JointMap, place_labels
from anymodal.app.neighbours import nearest_files
from anymodal.classifier.reference import Reference
from anymodal.report.palette import PALETTE
from helpers.appdata import CLASSES, reference, text_of
from helpers.contrast import contrast


@pytest.fixture(scope="module")
def rows():
    return reference()


@pytest.fixture(scope="module")
def joint_map(rows):
    return JointMap(rows)


def points_of(*traces):
    return np.concatenate([np.stack([trace.x, trace.y], axis=1) for trace in traces])


def test_every_clip_the_item_and_its_neighbours_are_drawn(rows, joint_map):
    neighbours = [n for m in ("audio", "image") for n in nearest_files(rows, rows.vectors[0], 3, m)]
    figure = joint_map.figure({"audio": rows.vectors[0], "image": rows.vectors[20]}, neighbours)
    *classes, rings, own = figure.data
    assert [set(trace.text) for trace in classes] == [
        {f"{name}, audio", f"{name}, image"} for name in CLASSES
    ]
    assert [len(trace.x) for trace in classes] == [12, 12, 12]
    assert [(symbol == "circle") for symbol in classes[0].marker.symbol] == [True] * 6 + [False] * 6
    assert len(rings.x) == 6
    # rows 0 and 20 of the reference: the first audio of banjo and its third image
    assert np.allclose(points_of(own), points_of(classes[0])[[0, 8]])
    assert [label.text for label in figure.layout.annotations] == [
        *CLASSES, "<b>your audio</b>", "<b>your image</b>",
    ]  # fmt: skip
    text = text_of(joint_map.html(neighbours))
    assert "36 of 36 training clips" in text
    assert "audio: banjo, banjo, banjo; image: banjo" in text


def test_axes_have_one_scale_and_an_item_moves_no_clip_against_another(rows, joint_map):
    plain = points_of(*joint_map.figure().data)
    points = points_of(*joint_map.figure({"image": 40 * rows.vectors[0]}).data)
    assert ((points >= 0) & (points <= 1)).all()
    before, after = (np.linalg.norm(p[:, None] - p, axis=2) for p in (plain, points[:-1]))
    assert np.allclose(after / after.max(), before / before.max())


@pytest.mark.parametrize("vectors", [np.full((5, 4), 0.5), np.outer(np.arange(5.0), [3, 4, 0, 0])])
def test_vectors_of_less_than_two_dimensions(vectors):
    joint_map = JointMap(Reference(reference().table.iloc[:5], vectors.astype(np.float32)))
    assert joint_map.variance == pytest.approx(float(vectors.std() > 0))
    assert np.isfinite(points_of(*joint_map.figure().data)).all()


def test_of_many_clips_a_part_is_drawn_with_all_neighbours():
    rows = reference(per_file=2 * CLIPS, files=1)
    joint_map = JointMap(rows)
    row = np.setdiff1d(np.arange(len(rows.table)), joint_map.drawn)[0]
    neighbour = rows.nearest(rows.vectors[row], 1, rows.table["modality"][row])
    *classes, rings, _ = joint_map.figure(neighbours=neighbour).data
    assert len(points_of(*classes)) == 6 * CLIPS + 1
    assert points_of(rings)[0].tolist() in points_of(*classes).tolist()


def test_names_of_classes_stay_text(rows):
    table = rows.table.assign(instrument=rows.table["instrument"].replace("banjo", "<b>{{x}}"))
    joint_map = JointMap(Reference(table, rows.vectors))
    plot = joint_map.plot()
    assert "<b>" not in plot.plot
    assert (plot.type, json.loads(plot.plot)["config"]) == ("plotly", {"displayModeBar": False})
    assert "<b>{{x}}" in text_of(joint_map.html())


def test_marks_stand_out_from_the_paper_in_both_themes():
    assert min(contrast(colour, paper) for colour in COLOURS for paper in PALETTE["paper"]) > 1.5


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12)
    | st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda point: [point] * 12),
    st.sampled_from([300, 343, 800]),
)
def test_labels_stay_inside_and_cover_neither_one_another_nor_the_item(anchors, side):
    names = [f"name {n:02}" for n in range(len(anchors))]
    places = side * np.array(place_labels(names, np.array(anchors), np.array(anchors[:1])))
    boxes = [(x, y, LETTER * 7 / 2, LINE / 2 - 0.01) for x, y in places]
    for x, y, width, height in boxes:
        assert width <= x <= side - width and height <= y <= side - height
    boxes.append((*(side * np.array(anchors[0])), CROSSHAIR, CROSSHAIR))
    for (x, y, width, height), (x2, y2, width2, height2) in combinations(boxes, 2):
        assert abs(x - x2) >= width + width2 or abs(y - y2) >= height + height2
