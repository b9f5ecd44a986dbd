"""The judge: what it makes of votes, and that saving it loses nothing."""

import json

import numpy as np
import pytest

from anymodal.calibration import tempered
from anymodal.errors import AnymodalError
from anymodal.fusion import Weights, fuse
from anymodal.judge import ARRAYS, HEADER, Judge
from anymodal.novelty import fit_novelty

SHARES = np.array([[0.7, 0.3, 0.0], [0.1, 0.2, 0.7]])


def rows(count, dim, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


@pytest.fixture
def judge():
    novelty = {
        modality: fit_novelty(rows(50, dim), rows(30, dim, 1), 0.9, 4, 0)
        for modality, dim in (("audio", 9), ("image", 7))
    }
    facts = {"keep": 0.9, "calibration_rows": {"audio": 3, "image": 4}}
    return Judge({"audio": 0.1 + 0.2, "image": 2 / 3}, 0.005, Weights(1 / 3, 1.7), novelty, facts)


def test_by_its_parts(judge):
    sounds = judge.calibrated("audio", SHARES)
    pictures = judge.calibrated("image", SHARES)
    assert np.array_equal(sounds, tempered(SHARES, 0.1 + 0.2, 0.005))
    both = judge.fused({"audio": sounds, "image": pictures})
    assert np.array_equal(both, fuse(sounds, pictures, Weights(1 / 3, 1.7)))
    assert judge.fused({"image": pictures}) is pictures
    near = judge.novelties("audio", rows(20, 9, 2))
    assert np.array_equal(near <= 1, judge.novelty["audio"].known(rows(20, 9, 2)))
    assert judge.novelties("audio", rows(0, 9)).shape == (0,)


def test_as_it_comes_it_changes_no_answer_and_knows_all():
    plain = Judge()
    assert np.allclose(plain.calibrated("audio", SHARES), SHARES, atol=1e-5)
    assert (plain.novelties("image", 1e6 * rows(3, 5)) == 0).all()


def test_a_threshold_of_zero_divides_nothing(judge):
    flat = rows(40, 4)
    flat[:, 3] = 0
    novelty = fit_novelty(flat, flat[:5], 1.0, 3, 0)
    found = Judge(novelty={"image": novelty}).novelties("image", flat + np.eye(4)[3])
    assert np.isfinite(found).all() and (found > 1).all()


def test_saving_and_loading_is_exact(judge, tmp_path):
    judge.save(tmp_path)
    again = Judge.load(tmp_path)
    for modality, dim in (("audio", 9), ("image", 7)):
        assert np.array_equal(
            judge.novelties(modality, rows(9, dim)), again.novelties(modality, rows(9, dim))
        )
        assert np.array_equal(
            judge.calibrated(modality, SHARES), again.calibrated(modality, SHARES)
        )
    assert (again.weights, again.facts, again.floor) == (judge.weights, judge.facts, judge.floor)
    assert again.temperatures == judge.temperatures
    Judge().save(tmp_path / "plain")
    plain = Judge.load(tmp_path / "plain")
    assert plain == Judge() and plain.novelty == {}


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / HEADER).unlink(),
        lambda folder: (folder / ARRAYS).unlink(),
        lambda folder: (folder / HEADER).write_text("{"),
        lambda folder: (folder / HEADER).write_text("[]"),
        lambda folder: (folder / ARRAYS).write_bytes(b"torn"),
        lambda folder: (folder / ARRAYS).write_bytes((folder / ARRAYS).read_bytes()[:-40]),
        lambda folder: change(folder / HEADER, temperatures={"audio": 1.0}),
        lambda folder: change(folder / HEADER, weights=[1.0, 2.0]),
        lambda folder: change(folder / HEADER, weights={"audio": 1.0, "smell": 2.0}),
        lambda folder: change(folder / HEADER, thresholds={"audio": "much"}),
        lambda folder: Judge().save(folder / "x") or (folder / "x" / ARRAYS).replace(
            folder / ARRAYS
        ),
    ],
)  # fmt: skip
def test_broken_files_are_refused(judge, tmp_path, spoil):
    judge.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(AnymodalError, match="no readable judge.json and judge.safetensors"):
        Judge.load(tmp_path)
