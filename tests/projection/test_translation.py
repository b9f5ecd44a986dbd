"""The two branches, their scalers, and projecting with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES
from anymodal.projection.translation import ACTIVATIONS, Translation, fit_scaler, unit_rows


def fitted(seed: int = 0) -> Translation:
    """A translation whose scalers and BatchNorm figures are not those of a new one."""
    rng = np.random.default_rng(seed)
    translation = Translation(6, 9, hidden=16, dim=5, seed=seed)
    for modality in MODALITIES:
        d = translation.dims[modality]
        translation.set_scaler(modality, rng.normal(3, 2, d), rng.uniform(0.1, 2, d))
    translation.train()
    for _ in range(5):
        translation(torch.randn(32, 6) * 3 + 1, torch.randn(32, 9) - 2)
    return translation.eval()


def test_forward_in_eval_mode_is_project() -> None:
    translation = fitted()
    rng = np.random.default_rng(2)
    audio, image = (rng.normal(size=(7, d)).astype(np.float32) for d in (6, 9))
    with torch.no_grad():
        joint = translation(torch.from_numpy(audio), torch.from_numpy(image))
    np.testing.assert_allclose(translation.project("audio", audio), joint[0].numpy(), atol=1e-5)
    np.testing.assert_allclose(translation.project("image", image), joint[1].numpy(), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 300), seed=st.integers(0, 1000))
def test_a_row_is_the_same_alone_and_in_any_batch(n: int, seed: int) -> None:
    translation = fitted()
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    together = translation.project("audio", x)
    assert translation.project("audio", x[:0]).shape == (0, 5)
    order = rng.permutation(n)
    np.testing.assert_array_equal(translation.project("audio", x[order]), together[order])
    row = int(rng.integers(n))
    np.testing.assert_array_equal(translation.project("audio", x[row : row + 1])[0], together[row])


def test_more_rows_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    translation = fitted()
    x = np.random.default_rng(0).normal(size=(25, 6))
    whole = translation.project("audio", x)
    monkeypatch.setattr("anymodal.projection.base.BLOCK", 10)
    np.testing.assert_array_equal(translation.project("audio", x), whole)


def test_projecting_leaves_a_module_in_training_alone() -> None:
    translation = fitted().train()
    before = {key: value.clone() for key, value in translation.state_dict().items()}
    first = translation.project("audio", np.ones((4, 6)))
    assert translation.training
    assert all(torch.equal(before[k], v) for k, v in translation.state_dict().items())
    np.testing.assert_array_equal(first, translation.eval().project("audio", np.ones((4, 6))))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16, ">f4"])
def test_number_types(dtype: str) -> None:
    x = np.arange(12, dtype=dtype).reshape(2, 6)
    translation = fitted()
    expected = translation.project("audio", x.astype(np.float32))
    np.testing.assert_array_equal(translation.project("audio", x), expected)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 9)), "6 dimensions, not 9"),
        (np.ones(6), "shape"),
        (np.ones((1, 2, 6)), "shape"),
        (np.full((2, 6), "a"), "numbers"),
        (np.ones((2, 6), dtype=complex), "numbers"),
        (np.array([[0.0] * 6, [0, 0, np.nan, 0, 0, 0]]), "embedding 1 holds"),
        (np.array([[np.inf] * 6]), "embedding 0 holds"),
    ],
)
def test_bad_embeddings(x: np.ndarray, message: str) -> None:
    with pytest.raises(AnymodalError, match=message):
        fitted().project("audio", x)


def test_unknown_modality() -> None:
    with pytest.raises(AnymodalError, match="text"):
        fitted().project("text", np.ones((1, 6)))  # type: ignore[arg-type]


def test_the_seed_alone_decides_the_first_weights() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = Translation(4, 5, seed=7).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    same, other = Translation(4, 5, seed=7).state_dict(), Translation(4, 5, seed=8).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(
        one["branches.audio.hidden.weight"], other["branches.audio.hidden.weight"]
    )
    # PyTorch's default range for a linear layer of 4 inputs is ±1/2
    weight = one["branches.audio.hidden.weight"]
    assert weight.abs().max() <= 0.5 and weight.abs().max() > 0.45


def test_architecture_is_the_papers() -> None:
    sizes = [p.numel() for p in Translation(1024, 2048).branches["audio"].parameters()]
    assert sizes == [1024 * 256, 256, 256, 256, 256 * 128, 128]


def test_unit_rows_of_zero_vectors() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]], requires_grad=True)
    unit = unit_rows(x)
    torch.testing.assert_close(unit.detach(), torch.tensor([[0.6, 0.8], [0, 0], [0, 0]]))
    unit.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert not x.grad[1:].any()


def test_unit_rows_gradcheck() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit_rows, x)


def test_the_default_is_the_papers_network_with_the_names_it_always_had() -> None:
    translation = Translation(8, 10, hidden=16, dim=8, seed=1)
    expected = ["mean", "scale", "hidden.weight", "hidden.bias", "norm.weight", "norm.bias",
                "norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "out.weight",
                "out.bias"]  # fmt: skip
    names = [f"branches.{m}.{name}" for m in MODALITIES for name in expected]
    assert list(translation.state_dict()) == names
    # the first weights are part of what a seed means: worked out by a plain program
    generator = torch.Generator().manual_seed(1)
    for features, modality in zip((8, 10), MODALITIES, strict=True):
        for layer, inputs, outputs in (("hidden", features, 16), ("out", 16, 8)):
            for kind, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
                drawn = torch.empty(shape).uniform_(
                    -(inputs**-0.5), inputs**-0.5, generator=generator
                )
                found = translation.state_dict()[f"branches.{modality}.{layer}.{kind}"]
                assert torch.equal(found, drawn)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_branch_is_the_formula(depth: int, activation: str) -> None:
    translation = Translation(6, 9, 16, 5, seed=2, depth=depth, activation=activation, dropout=0.5)
    mean, scale = np.random.default_rng(0).uniform(0.1, 2, size=(2, 6))
    translation.set_scaler("audio", mean, scale)
    translation.train()
    for _ in range(3):
        translation(torch.randn(32, 6), torch.randn(32, 9))
    x = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    state = {
        k.removeprefix("branches.audio."): v.double().numpy()
        for k, v in translation.state_dict().items()
        if k.startswith("branches.audio.")
    }
    names = ["", *map(str, range(2, depth))][: depth - 1]
    h = (x - state["mean"]) * state["scale"]
    for name in names:
        h = h @ state[f"hidden{name}.weight"].T + state[f"hidden{name}.bias"]
        h = (h - state[f"norm{name}.running_mean"]) / np.sqrt(
            state[f"norm{name}.running_var"] + 1e-5
        )
        h = h * state[f"norm{name}.weight"] + state[f"norm{name}.bias"]
        if activation == "relu":
            h = np.maximum(h, 0)
        elif activation == "elu":
            h = np.where(h > 0, h, np.exp(np.minimum(h, 0)) - 1)
        else:
            from scipy.special import erf

            h = h * (1 + erf(h / np.sqrt(2))) / 2
    y = h @ state["out.weight"].T + state["out.bias"]
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    found = translation.project("audio", x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-6)
    layers = [m for m in translation.branches["audio"].modules() if isinstance(m, torch.nn.Linear)]
    assert len(layers) == depth


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    translation = Translation(6, 9, hidden=2000, dim=5, dropout=0.25)
    branch = translation.branches["audio"].train()
    seen: list[torch.Tensor] = []
    branch.out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    x = torch.randn(64, 6)
    branch(x, torch.Generator().manual_seed(0))
    branch.dropout = 0.0
    branch(x)
    dropped, whole = seen
    zero = dropped == 0
    assert zero.float().mean().item() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(dropped[~zero], whole[~zero] / 0.75)
    branch.eval()
    branch.dropout = 0.25
    torch.testing.assert_close(branch(x), branch(x))


class TestScaler:
    def test_matches_numpy_on_the_chosen_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("anymodal.projection.translation.BLOCK", 7)
        rng = np.random.default_rng(0)
        # means far above the deviations, and drifting: where one-pass sums lose their digits
        x = (1e4 + np.arange(100)[:, None] + rng.normal(size=(100, 5))).astype(np.float32)
        rows = rng.permutation(100)[:60]
        mean, scale = fit_scaler(x, rows)
        chosen = x[rows].astype(np.float64)
        np.testing.assert_allclose(mean, chosen.mean(0), rtol=1e-12)
        np.testing.assert_allclose(scale, 1 / chosen.std(0), rtol=1e-9)

    @pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-30])
    def test_constant_features_are_left_out(self, value: float) -> None:
        x = np.full((50, 2), value, np.float32)
        x[:, 1] = np.arange(50)
        mean, scale = fit_scaler(x, np.arange(50))
        assert mean[0] == pytest.approx(value, rel=1e-6)
        assert scale[0] == 0 and scale[1] > 0

    def test_one_row(self) -> None:
        mean, scale = fit_scaler(np.array([[1.0, 2.0]], np.float32), np.array([0]))
        np.testing.assert_array_equal(mean, [1, 2])
        np.testing.assert_array_equal(scale, [0, 0])

    def test_no_rows(self) -> None:
        with pytest.raises(AnymodalError, match="no rows"):
            fit_scaler(np.ones((3, 2), np.float32), np.array([], int))

    def test_a_feature_that_varies_only_later_changes_nothing(self) -> None:
        x = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
        x[:, 3] = 2.0
        translation = Translation(6, 6, hidden=8, dim=3)
        translation.set_scaler("audio", *fit_scaler(x, np.arange(20)))
        later = x.copy()
        later[:, 3] = 1e9
        np.testing.assert_array_equal(
            translation.project("audio", later), translation.project("audio", x)
        )
