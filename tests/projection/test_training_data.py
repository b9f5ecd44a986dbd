"""The translation's rows without some of them."""

import numpy as np
import pandas as pd
import pytest

from anymodal.dataset.pairing import fixed_pairs
from anymodal.encoders.base import MODALITIES
from anymodal.errors import AnymodalError
from anymodal.params import TranslateParams
from anymodal.stages.base import Rows
from anymodal.stages.trainings import trained
from anymodal.stages.translation_data import TranslationData

CLASSES = ("drums", "piano", "violin")


def rows(modality, split, per_class, clip=False):
    names = [name for name in CLASSES for _ in range(per_class)]
    what = "clip" if clip else modality
    ids = [f"{what}-{split}-{name}-{n}" for n, name in enumerate(names)]
    random = np.random.default_rng(len(modality))
    place = np.array([CLASSES.index(name) for name in names])
    matrix = np.eye(3)[place] + 0.1 * random.standard_normal((len(names), 3))
    clips = pd.DataFrame({"clip_id": ids, "instrument": names})
    return Rows(clips, matrix.astype(np.float32), f"{modality} 1")


def made(pairing, sounds=4):
    clip = pairing == "clip"
    train = {m: rows(m, "train", sounds if m == "audio" or clip else 6, clip) for m in MODALITIES}
    valid = {m: rows(m, "valid", 2, clip) for m in MODALITIES}
    classes = [valid[m].clips["instrument"] for m in MODALITIES]
    return TranslationData(
        "ear", "eye", pairing, train, valid, fixed_pairs(*classes, pairing, 3), 3
    )


def ids(data, split, modality):
    return set(getattr(data, split)[modality].clips["clip_id"])


def test_what_goes_is_gone_and_the_rest_is_as_it_was():
    data = made("class")
    gone = {"audio-train-drums-0", "audio-valid-piano-2"}
    left = data.without(gone)
    for split in ("train", "valid"):
        for modality in MODALITIES:
            assert ids(left, split, modality) == ids(data, split, modality) - gone
    before, after = data.train["audio"], left.train["audio"]
    np.testing.assert_array_equal(after.matrix, before.matrix[1:])
    assert after.clips.index[0] == 0
    assert left.fingerprint(TranslateParams()) != data.fingerprint(TranslateParams())
    assert left.held_out.audio.max() < len(left.valid["audio"].matrix)


def test_nothing_gone_changes_nothing():
    data = made("class")
    settings = TranslateParams()
    assert data.without(set()).fingerprint(settings) == data.fingerprint(settings)


def test_a_class_left_with_one_modality_goes_altogether():
    data = made("class")
    gone = {one for one in ids(data, "train", "audio") if "violin" in one}
    left = data.without(gone)
    assert not any("violin" in one for one in ids(left, "train", "image"))
    assert any("violin" in one for one in ids(left, "valid", "image"))
    assert left.sampler.classes == ("drums", "piano")


def test_clip_pairs_stay_row_by_row_the_same_moments():
    data = made("clip")
    left = data.without({"clip-train-drums-1", "clip-valid-violin-5"})
    for split in ("train", "valid"):
        one = getattr(left, split)
        assert one["audio"].clips["clip_id"].tolist() == one["image"].clips["clip_id"].tolist()
    assert len(left.train["audio"].matrix) == 11 and len(left.valid["image"].matrix) == 5


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize(("pairing", "what"), [("class", "classes"), ("clip", "pairs")])
def test_too_little_left_is_told(split, pairing, what):
    data = made(pairing)
    kept = "drums" if pairing == "class" else "drums-0"
    gone = {one for one in ids(data, split, "audio") if kept not in one}
    told = f"fewer than two {what} would be left in the translation's {split}"
    assert data.lacks(gone).startswith(told)
    with pytest.raises(AnymodalError, match=told):
        data.without(gone)
    assert data.lacks(set()) == ""


def test_a_finished_training_is_kept_and_one_of_other_rows_is_not(tmp_path):
    opened = []

    class Progress:
        def __enter__(self):
            opened.append(self)
            return lambda done, total: None

        def __exit__(self, *_):
            return None

    settings = TranslateParams(hidden=4, dim=2, batch_size=8, max_epochs=2, device="cpu")
    data = made("class")
    where = (tmp_path / "seed-0", tmp_path / "seed-0.checkpoint", Progress)
    first = trained(data, settings, 0, *where)
    assert trained(data, settings, 0, *where) == first and len(opened) == 1
    assert first["epochs"] == len(first["history"]) == 2
    trained(data.without({"audio-train-drums-0"}), settings, 0, *where)
    assert len(opened) == 2 and not where[1].exists()
