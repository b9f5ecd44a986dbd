"""Training rows without some of them."""

import numpy as np
import pytest

from anymodal.config.params import TranslateParams
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES
from helpers.training import training_data


def ids(data, split, modality):
    return set(getattr(data, split)[modality].clips["clip_id"])


def test_what_goes_is_gone_and_the_rest_is_as_it_was():
    data = training_data("class")
    gone = {"audio-train-drums-0", "audio-valid-piano-2"}
    left = data.without(gone)
    for split in ("train", "valid"):
        for modality in MODALITIES:
            assert ids(left, split, modality) == ids(data, split, modality) - gone
    before, after = data.train["audio"], left.train["audio"]
    np.testing.assert_array_equal(after.matrix, before.matrix[1:])
    assert after.clips.index[0] == 0
    assert left.fingerprint(TranslateParams()) != data.fingerprint(TranslateParams())
    assert left.valid_pairs.audio.max() < len(left.valid["audio"].matrix)


def test_nothing_gone_changes_nothing():
    data = training_data("class")
    settings = TranslateParams()
    assert data.without(set()).fingerprint(settings) == data.fingerprint(settings)


def test_a_class_left_with_one_modality_goes_altogether():
    data = training_data("class")
    gone = {name for name in ids(data, "train", "audio") if "violin" in name}
    left = data.without(gone)
    assert not any("violin" in name for name in ids(left, "train", "image"))
    assert any("violin" in name for name in ids(left, "valid", "image"))
    assert left.sampler.classes == ("drums", "piano")


def test_clip_pairs_stay_paired_row_by_row():
    data = training_data("clip")
    left = data.without({"clip-train-drums-1", "clip-valid-violin-5"})
    for split in ("train", "valid"):
        audio, image = (getattr(left, split)[m].clips["clip_id"].tolist() for m in MODALITIES)
        assert audio == image
    assert len(left.train["audio"].matrix) == 11 and len(left.valid["image"].matrix) == 5


@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize(("pairing", "what"), [("class", "classes"), ("clip", "pairs")])
def test_too_little_left_is_an_error(split, pairing, what):
    data = training_data(pairing)
    kept = "drums" if pairing == "class" else "drums-0"
    gone = {name for name in ids(data, split, "audio") if kept not in name}
    reason = f"fewer than two {what} would be left in the translation's {split}"
    assert data.shortage(gone).startswith(reason)
    with pytest.raises(AnymodalError, match=reason):
        data.without(gone)
    assert data.shortage(set()) == ""
