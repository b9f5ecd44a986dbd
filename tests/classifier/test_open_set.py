"""Novelty against an explicit projection, where its threshold lies, and saving a calibrator."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.classifier import open_set
from anymodal.classifier.calibration import tempered
from anymodal.classifier.fusion import Weights, fuse
from anymodal.classifier.open_set import (
    ARRAYS,
    HEADER,
    Novelty,
    OpenSetCalibrator,
    fit_novelty,
)
from anymodal.core.errors import AnymodalError

# ---------------------------------------------------------------------------------------- novelty


def rows(count, dim=12, inner=3, noise=0.05, seed=0):
    """Embeddings that vary in `inner` directions, and a little in all."""
    basis = np.random.default_rng(99).standard_normal((inner, dim))
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((count, inner)) @ basis + 5
    return (table + noise * rng.standard_normal((count, dim))).astype(np.float32)


def known(novelty, embeddings):
    return novelty.score(embeddings) <= novelty.threshold


def explicit(train, embeddings, dims):
    """The norm of what the projector onto the first eigenvectors of the covariance leaves."""
    mean, scale = train.mean(axis=0, dtype=float), train.std(axis=0, dtype=float)
    standard = (train - mean) / scale
    _, vectors = np.linalg.eigh(standard.T @ standard)
    inner = vectors[:, -dims:]
    residual = np.eye(train.shape[1]) - inner @ inner.T
    return np.array([np.linalg.norm(residual @ ((row - mean) / scale)) for row in embeddings])


def test_scores_against_an_explicit_projection():
    train, other = rows(200), rows(40, noise=1.0, seed=1)
    novelty = fit_novelty(train, rows(50, seed=2), 0.9, 3, 0)
    assert np.allclose(novelty.score(other), explicit(train, other, 3), rtol=1e-4, atol=1e-4)
    assert np.allclose(novelty.components @ novelty.components.T, np.eye(3), atol=1e-5)
    assert novelty.score(other[:0]).shape == (0,)


def test_rows_unlike_the_training_rows_are_novel():
    novelty = fit_novelty(rows(300), rows(100, seed=1), 0.95, 3, 0)
    assert known(novelty, rows(200, seed=2)).mean() > 0.85
    # as far from the middle as the training rows, in other directions
    directions = np.random.default_rng(3).standard_normal((200, 12))
    strange = 5 + directions * rows(300).std(axis=0)
    assert known(novelty, strange.astype(np.float32)).mean() < 0.05


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.floats(0.01, 1.0))
def test_the_threshold_keeps_the_requested_share(count, keep):
    valid = rows(count, noise=0.3, seed=count)
    kept = int(known(fit_novelty(rows(60), valid, keep, 3, 0), valid).sum())
    assert kept >= keep * count - 1e-9
    # and no more than it must, beyond the row that sets the threshold
    assert kept <= np.ceil(keep * (count - 1) + 1e-9) + 1


def test_rounded_training_rows_do_not_make_whole_ones_novel():
    """Packs hold float16: units that hardly vary are constant there, or jump by their rounding."""
    noise = np.random.default_rng(0).standard_normal((300, 3))
    still = np.tile([7.0, 1000.0, 0.3], (300, 1)) + 1e-4 * noise
    whole = np.hstack([rows(300, noise=0.5), still]).astype(np.float32)
    packed = whole[:250].astype(np.float16).astype(np.float32)
    novelty = fit_novelty(packed[:200], packed[200:], 0.95, 4, 0)
    assert known(novelty, whole[200:]).mean() > 0.85
    assert (novelty.scale > 0).all()


def test_units_that_never_vary():
    table = np.hstack([rows(60), np.full((60, 2), 3.0)]).astype(np.float32)
    novelty = fit_novelty(table, table[:20], 1.0, 3, 0)
    assert known(novelty, table[:20]).all() and np.isfinite(novelty.score(table + 1)).all()
    other = table.copy()
    other[:, -1] = 9.0
    assert not known(novelty, other).any()
    assert fit_novelty(np.full((20, 4), 3.0), table[:, :4], 0.9, 2, 0) is None


def test_too_few_rows_and_dimensions():
    table = rows(20)
    for train, valid in (
        (table[:2], table), (table, table[:0]), (table[:0], table), (table[:, :1], table[:, :1]),
    ):  # fmt: skip
        assert fit_novelty(train, valid, 0.95, 3, 0) is None
    few = fit_novelty(table[:7], table, 0.95, 100, 0)
    assert len(few.components) == 3, "a subspace of all rows would leave nothing outside"
    assert (few.score(table[:7]) > 0).any()
    assert len(fit_novelty(table, table, 0.95, 100, 0).components) == 9


def test_many_rows_are_sampled(monkeypatch):
    monkeypatch.setattr(open_set, "MOST_ROWS", 100)
    first, again, other = (fit_novelty(rows(400), rows(50, seed=1), 0.95, 3, s) for s in (5, 5, 6))
    assert np.array_equal(first.mean, again.mean) and not np.array_equal(first.mean, other.mean)
    assert first.threshold == again.threshold


def test_other_shares_and_shapes_are_refused():
    for keep in (0.0, -1.0, 1.1):
        with pytest.raises(AnymodalError, match="share to keep"):
            fit_novelty(rows(20), rows(5), keep, 3, 0)
    novelty = fit_novelty(rows(20), rows(5), 0.9, 3, 0)
    for wrong in (np.zeros((2, 5)), np.zeros(12)):
        with pytest.raises(AnymodalError, match=r"\(rows, 12\)"):
            novelty.score(wrong)
    with pytest.raises(AnymodalError, match="not of the same"):
        Novelty(novelty.mean, novelty.scale[:-1], novelty.components, 1.0)


# ------------------------------------------------------------------------------------- calibrator

SHARES = np.array([[0.7, 0.3, 0.0], [0.1, 0.2, 0.7]])
WEIGHTS = Weights(audio=1 / 3, image=1.7)


@pytest.fixture(scope="module")
def calibrator():
    novelty = {
        m: fit_novelty(rows(50, dim), rows(30, dim, seed=1), 0.9, 3, 0)
        for m, dim in (("audio", 9), ("image", 7))
    }
    return OpenSetCalibrator(
        temperatures={"audio": 0.1 + 0.2, "image": 2 / 3}, floor=0.005, weights=WEIGHTS,
        novelty=novelty, facts={"ood_keep_rate": 0.9, "calibration_rows": {"audio": 3, "image": 4}},
    )  # fmt: skip


def test_a_calibrator_is_its_parts(calibrator):
    audio, image = (calibrator.calibrated(m, SHARES) for m in ("audio", "image"))
    assert np.array_equal(audio, tempered(SHARES, 0.1 + 0.2, 0.005))
    fused = calibrator.fused({"audio": audio, "image": image})
    assert np.array_equal(fused, fuse(audio, image, WEIGHTS))
    assert calibrator.fused({"image": image}) is image
    embeddings = rows(20, 9, noise=0.06, seed=2)
    is_known = calibrator.novelties("audio", embeddings) <= 1
    assert np.array_equal(is_known, known(calibrator.novelty["audio"], embeddings))
    assert 0 < is_known.mean() < 1
    assert calibrator.novelties("audio", rows(0, 9)).shape == (0,)


def test_the_default_changes_no_answer_and_knows_all():
    plain = OpenSetCalibrator()
    assert np.allclose(plain.calibrated("audio", SHARES), SHARES, atol=1e-5)
    assert (plain.novelties("image", 1e6 * rows(3, 5)) == 0).all()


def test_a_threshold_of_zero():
    flat = rows(40, 4)
    flat[:, 3] = 0
    novelty = fit_novelty(flat, flat[:5], 1.0, 3, 0)
    scores = OpenSetCalibrator(novelty={"image": novelty}).novelties("image", flat + np.eye(4)[3])
    assert np.isfinite(scores).all() and (scores > 1).all()


def test_saving_and_loading_is_exact(calibrator, tmp_path):
    calibrator.save(tmp_path)
    loaded = OpenSetCalibrator.load(tmp_path)
    for modality, dim in (("audio", 9), ("image", 7)):
        before, after = (c.novelties(modality, rows(9, dim)) for c in (calibrator, loaded))
        assert np.array_equal(before, after)
    assert loaded.model_dump() == calibrator.model_dump()
    OpenSetCalibrator().save(tmp_path / "plain")
    assert OpenSetCalibrator.load(tmp_path / "plain") == OpenSetCalibrator()


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "damage",
    [
        lambda header, arrays: header.unlink(),
        lambda header, arrays: arrays.unlink(),
        lambda header, arrays: header.write_text("{"),
        lambda header, arrays: header.write_text("[]"),
        lambda header, arrays: arrays.write_bytes(b"torn"),
        lambda header, arrays: arrays.write_bytes(arrays.read_bytes()[:-40]),
        lambda header, arrays: change(header, temperatures={"audio": 1.0}),
        lambda header, arrays: change(header, temperatures={"audio": 1.0, "image": "much"}),
        lambda header, arrays: change(header, weights=[1.0, 2.0]),
        lambda header, arrays: change(header, weights={"audio": 1.0, "smell": 2.0}),
        lambda header, arrays: open_set.write_bytes(arrays, open_set.save({"audio.mean": SHARES})),
    ],
)
def test_damaged_files_are_refused(calibrator, tmp_path, damage):
    calibrator.save(tmp_path)
    damage(tmp_path / HEADER, tmp_path / ARRAYS)
    with pytest.raises(AnymodalError, match=f"no readable {HEADER} and {ARRAYS}"):
        OpenSetCalibrator.load(tmp_path)
