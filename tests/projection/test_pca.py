"""The PCA baseline against a plain singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.projection.base import Projection
from anymodal.projection.pca import fit_pca


def by_svd(x: np.ndarray, dim: int) -> np.ndarray:
    """Coordinates of `x`'s rows on its first principal axes; signs are arbitrary."""
    centred = x.astype(np.float64) - x.astype(np.float64).mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return (u * s)[:, :dim]


def data(rows: int, features: int, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = np.diag(0.7 ** np.arange(features)) @ rng.normal(size=(features, features))
    return (offset + rng.normal(size=(rows, features)) @ spread).astype(np.float32)


@pytest.mark.parametrize(("rows", "features"), [(200, 12), (13, 12), (12, 12), (9, 30)])
@pytest.mark.parametrize("offset", [0.0, 500.0])
def test_matches_the_svd_up_to_signs(rows: int, features: int, offset: float) -> None:
    x = data(rows, features, offset=offset)
    pca = fit_pca(x, x, dim=5)
    found = pca.project("audio", x)
    assert found.shape == (rows, 5) and found.dtype == np.float32
    np.testing.assert_allclose(np.abs(found), np.abs(by_svd(x, 5)), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found, pca.project("image", x))


def test_each_modality_has_its_own() -> None:
    audio, image = data(50, 6, seed=1), data(70, 9, seed=2)
    pca = fit_pca(audio, image, dim=4)
    assert isinstance(pca, Projection)
    assert (pca.kind, pca.dim, dict(pca.dims)) == ("pca", 4, {"audio": 6, "image": 9})
    np.testing.assert_allclose(pca.project("audio", audio).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(pca.project("image", image).mean(0), 0, atol=1e-5)
    share = pca.axes["image"].variance_ratio
    assert (np.diff(share) <= 0).all() and 0.5 < share.sum() <= 1


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 20),
    features=st.integers(1, 15),
    dim=st.integers(1, 18),
    seed=st.integers(0, 99),
)
def test_components_are_orthonormal_then_zero(
    rows: int, features: int, dim: int, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(rows, features))
    axes = fit_pca(x, x, dim).axes["audio"]
    found = min(dim, rows - 1, features)
    expected = np.zeros((dim, dim))
    expected[:found, :found] = np.eye(found)
    np.testing.assert_allclose(axes.components @ axes.components.T, expected, atol=1e-9)


def test_distances_survive_where_every_component_fits() -> None:
    x = data(8, 30)
    joint = fit_pca(x, x, dim=128).project("audio", x)
    assert joint.shape == (8, 128)
    assert not joint[:, 7:].any()
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    found = np.linalg.norm(joint[:, None] - joint[None], axis=2)
    np.testing.assert_allclose(found, distances, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_rows_all_equal_project_to_zero(value: float) -> None:
    x = np.full((5, 3), value, np.float32)
    assert not fit_pca(x, x, dim=4).project("audio", x).any()


def test_fitting_again_gives_the_same() -> None:
    x = data(100, 20)
    first, second = (fit_pca(x, x, dim=8).project("audio", x) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_row_is_the_same_alone_and_in_any_batch() -> None:
    x = data(100, 20)
    pca = fit_pca(x, x, dim=8)
    together = pca.project("audio", x)
    for row in (0, 41, 99):
        np.testing.assert_array_equal(pca.project("audio", x[row : row + 1])[0], together[row])
    assert pca.project("audio", x[:0]).shape == (0, 8)


def test_bad_input() -> None:
    x = data(10, 4)
    with pytest.raises(AnymodalError, match="two image rows, not 1"):
        fit_pca(x, x[:1])
    with pytest.raises(AnymodalError, match="two audio rows"):
        fit_pca(np.empty((5, 0)), x)
    with pytest.raises(AnymodalError, match="not finite"):
        fit_pca(np.where(x > 0, np.nan, x), x)
    with pytest.raises(AnymodalError, match="4 dimensions, not 3"):
        fit_pca(x, x, dim=2).project("audio", x[:, :3])
