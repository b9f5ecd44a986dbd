import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.evaluation.structure import (
    SpaceStructure,
    centroids,
    space_structure,
)

CLASSES = ("banjo", "flute", "piano", "voice")


def space(seed, items=12, classes=CLASSES, dim=3, spread=1.0, offset=0.0):
    """Both modalities' items around shared class centres; `offset` parts the modalities."""
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((len(classes), dim))
    embeddings, instruments = {}, {}
    for place, modality in enumerate(("audio", "image")):
        codes = rng.integers(0, len(classes), items)
        rows = centres[codes] + spread * rng.standard_normal((items, dim)) + place * offset
        embeddings[modality] = rows.astype(np.float32)
        instruments[modality] = np.array(classes)[codes]
    return embeddings, instruments


def slow(embeddings, instruments, classes=CLASSES):
    centre = {}
    for modality in ("audio", "image"):
        for name in classes:
            own = [
                row.astype(float)
                for row, instrument in zip(embeddings[modality], instruments[modality], strict=True)
                if instrument == name
            ]
            if own:
                centre[modality, name] = sum(own) / len(own)

    def distance(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5

    clusters = [(m, name) for m in ("audio", "image") for name in classes]
    matrix = [
        [
            distance(centre[a], centre[b]) if a in centre and b in centre else float("nan")
            for b in clusters
        ]
        for a in clusters
    ]
    shared = [n for n in classes if ("audio", n) in centre and ("image", n) in centre]
    pairs = [(a, b) for a in shared for b in shared]
    between = {(a, b): distance(centre["audio", a], centre["image", b]) for a, b in pairs}
    same = [d for (a, b), d in between.items() if a == b]
    different = [d for (a, b), d in between.items() if a != b]

    def accuracy(asked, other):
        scores = []
        for name in shared:
            hits = [
                min(shared, key=lambda n: distance(row.astype(float), centre[other, n])) == name
                for row, own in zip(embeddings[asked], instruments[asked], strict=True)
                if own == name
            ]
            scores.append(sum(hits) / len(hits))
        return sum(scores) / len(scores) if scores else None

    return (
        np.array(matrix),
        shared,
        sum(same) / len(same) if same else None,
        sum(different) / len(different) if different else None,
        accuracy("audio", "image"),
        accuracy("image", "audio"),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 14))
def test_all_numbers_are_those_of_plain_loops(seed, items):
    embeddings, instruments = space(seed, items)
    found = space_structure(embeddings, instruments, CLASSES)
    matrix, shared, same, different, forth, back = slow(embeddings, instruments)
    np.testing.assert_allclose(found.matrix, matrix, rtol=1e-9, atol=1e-9)
    assert found.shared == tuple(shared)
    for value, expected in (
        (found.same, same),
        (found.different, different),
        (found.audio_to_image, forth),
        (found.image_to_audio, back),
    ):
        assert value is None if expected is None else value == pytest.approx(expected)
    if different is not None:
        assert found.ratio == pytest.approx(same / different)
    assert np.array_equal(found.matrix, found.matrix.T, equal_nan=True)


def test_one_space_and_two_spaces():
    joint = space_structure(*space(0, items=200, spread=0.2), CLASSES)
    assert joint.ratio < 0.1
    assert joint.accuracy == pytest.approx((joint.audio_to_image + joint.image_to_audio) / 2)
    assert joint.accuracy > 0.95
    assert joint.chance == 0.25
    apart = space_structure(*space(0, items=200, spread=0.2, offset=50), CLASSES)
    assert 0.9 < apart.ratio < 1.1
    assert apart.accuracy < 0.6


def test_a_collapsed_space_is_at_chance():
    embeddings, instruments = space(1, items=100)
    flat = {modality: np.ones_like(rows) for modality, rows in embeddings.items()}
    found = space_structure(flat, instruments, CLASSES)
    assert (found.same, found.different, found.ratio) == (0, 0, None)
    assert found.accuracy == found.chance == 0.25


def test_turning_shifting_and_scaling_the_space_change_no_number():
    embeddings, instruments = space(2, items=60)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    moved = {m: 7 * rows.astype(float) @ turn + [1, 2, 3] for m, rows in embeddings.items()}
    first, second = (
        space_structure(embeddings, instruments, CLASSES),
        space_structure(moved, instruments, CLASSES),
    )
    np.testing.assert_allclose(second.matrix, 7 * first.matrix, rtol=1e-9, atol=1e-9)
    assert second.ratio == pytest.approx(first.ratio)
    assert second.accuracy == pytest.approx(first.accuracy)


def test_centroids_are_not_brought_to_unit_length():
    rows = np.eye(2, dtype=np.float32)
    means = centroids(rows, ["banjo", "banjo"], CLASSES)
    assert means[0].tolist() == [0.5, 0.5]
    assert np.isnan(means[1:]).all()
    assert means.dtype == np.float64


def test_orders_of_the_figure():
    embeddings = {"audio": np.eye(3), "image": np.eye(3)[:2]}
    instruments = {"audio": ["flute", "banjo", "voice"], "image": ["voice", "flute"]}
    found = space_structure(embeddings, instruments, ("banjo", "flute", "voice"))
    by_modality = [found.clusters[row] for row in found.order("modality")]
    assert by_modality == [
        ("audio", "banjo"),
        ("audio", "flute"),
        ("audio", "voice"),
        ("image", "flute"),
        ("image", "voice"),
    ]
    by_instrument = [found.clusters[row] for row in found.order("instrument")]
    assert by_instrument == [
        ("audio", "banjo"),
        ("audio", "flute"),
        ("image", "flute"),
        ("audio", "voice"),
        ("image", "voice"),
    ]
    for by in ("modality", "instrument"):
        order = found.order(by)
        assert not np.isnan(found.matrix[np.ix_(order, order)]).any()


def test_classes_of_one_modality_take_no_part_in_the_numbers():
    embeddings, instruments = space(3, items=40)
    whole = space_structure(embeddings, instruments, CLASSES)
    keep = instruments["image"] != "voice"
    fewer = space_structure(
        {"audio": embeddings["audio"], "image": embeddings["image"][keep]},
        {"audio": instruments["audio"], "image": instruments["image"][keep]},
        CLASSES,
    )
    alone = space_structure(
        {m: embeddings[m][instruments[m] != "voice"] for m in embeddings},
        {m: instruments[m][instruments[m] != "voice"] for m in instruments},
        CLASSES[:3],
    )
    assert fewer.counts["image"][3] == 0 and fewer.counts["audio"] == whole.counts["audio"]
    assert fewer.shared == CLASSES[:3]
    for name in ("same", "different", "ratio", "audio_to_image", "image_to_audio", "chance"):
        assert getattr(fewer, name) == pytest.approx(getattr(alone, name))


def test_nothing_and_one_class():
    nothing = {"audio": np.empty((0, 3)), "image": np.empty((0, 3))}
    empty = space_structure(nothing, {"audio": [], "image": []}, CLASSES)
    assert np.isnan(empty.matrix).all() and empty.matrix.shape == (8, 8)
    assert empty.order("modality").tolist() == []
    numbers = ("same", "different", "ratio", "audio_to_image", "image_to_audio", "chance")
    assert all(getattr(empty, name) is None for name in numbers)
    assert empty.accuracy is None
    one = space_structure(
        {"audio": np.zeros((2, 2)), "image": np.full((1, 2), 3.0)},
        {"audio": ["piano"] * 2, "image": ["piano"]},
        ["piano"],
    )
    assert one.same == pytest.approx(18**0.5)
    assert (one.different, one.ratio, one.chance, one.accuracy) == (None, None, 1, 1)


def test_structures_come_back_from_json(tmp_path):
    embeddings, instruments = space(4, items=9)
    keep = instruments["image"] != instruments["image"][0]
    found = space_structure(
        {"audio": embeddings["audio"], "image": embeddings["image"][keep]},
        {"audio": instruments["audio"], "image": instruments["image"][keep]},
        CLASSES,
    )
    assert np.isnan(found.matrix).any()
    path = tmp_path / "structure.json"
    found.write(path)
    assert "NaN" not in path.read_text()
    assert SpaceStructure.read(path, "structure") == found


def test_bad_input_is_refused():
    rows = np.zeros((2, 3))
    with pytest.raises(AnymodalError, match="same items"):
        centroids(rows, ["piano"], CLASSES)
    with pytest.raises(AnymodalError, match="NaN or infinity"):
        centroids(np.full((1, 2), np.nan), ["piano"], CLASSES)
    with pytest.raises(AnymodalError, match=r"'harp' \(1 item"):
        centroids(rows, ["piano", "harp"], CLASSES)
    with pytest.raises(AnymodalError, match="distinct"):
        centroids(rows, ["piano"] * 2, ["piano", "piano"])
