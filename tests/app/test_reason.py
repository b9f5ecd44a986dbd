import numpy as np
import pytest
from appdata import CLASSES, reference
from PIL import Image

from anymodal.app.media_folder import MediaFolder
from anymodal.app.reason import nearest_files, query, reason
from anymodal.reference import Reference


def by_hand(rows, vector, count, modality):
    """Of every file the best row, best first; slowly."""
    best = {}
    for (_, row), cosine in zip(rows.table.iterrows(), rows.vectors @ vector, strict=True):
        if row["modality"] == modality and cosine > best.get(row["path"], (-2.0, ""))[0]:
            best[row["path"]] = (float(cosine), row["clip_id"])
    return sorted(best.values(), key=lambda one: -one[0])[:count]


@pytest.mark.parametrize("count", [1, 4, 9, 50])
@pytest.mark.parametrize("modality", ["audio", "image"])
def test_of_each_file_the_nearest_row_nearest_first(count, modality):
    rows = reference(per_file=3)
    vector = rows.vectors[4]
    found = nearest_files(rows, vector, count, modality)
    expected = by_hand(rows, vector, count, modality)
    assert [one.clip_id for one in found] == [name for _, name in expected]
    assert [one.cosine for one in found] == pytest.approx([cosine for cosine, _ in expected])
    assert {one.modality for one in found} == {modality}


def test_many_rows_of_one_file_do_not_crowd_out_the_others():
    rows = reference(per_file=40, files=2)
    found = nearest_files(rows, rows.vectors[0], 6, "audio")
    assert len({one.path for one in found}) == 6


def test_an_empty_reference_has_no_reason():
    full = reference()
    empty = Reference(full.table.iloc[:0], full.vectors[:0])
    assert reason(empty, np.ones(6), 4, None) == {"audio": [], "image": []}


def test_what_is_looked_up_is_what_the_answer_rests_on():
    audio, image = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    both = {"audio": audio, "image": image}
    assert np.allclose(query(both, "audio"), audio)
    assert np.allclose(query(both, "image"), image)
    assert np.allclose(query(both, "both"), [2**-0.5, 2**-0.5, 0])
    assert np.allclose(query({"image": image}, "both"), image)
    # opposite vectors have no mean direction, and no numbers that are not finite
    assert np.array_equal(query({"audio": audio, "image": -audio}, "both"), np.zeros(3))


def test_media_come_with_the_clips_that_have_them(tmp_path):
    rows = reference()
    name = nearest_files(rows, rows.vectors[0], 1, "image")[0].path
    (tmp_path / name).parent.mkdir(parents=True)
    Image.new("RGB", (20, 20), "teal").save(tmp_path / name)
    found = reason(rows, rows.vectors[0], 2, MediaFolder(tmp_path))
    assert [card.preview is not None for card in found["image"]] == [True, False]
    assert [card.preview for card in found["audio"]] == [None, None]
    assert {c.neighbour.instrument for cards in found.values() for c in cards} == {CLASSES[0]}
    without = reason(rows, rows.vectors[0], 2, None)
    assert not any(card.preview for cards in without.values() for card in cards)
