"""Depth, activation, dropout, weight decay, the other loss; and that the default is as before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anymodal.config.params import TranslateParams
from anymodal.core.errors import AnymodalError
from anymodal.core.modality import MODALITIES
from anymodal.data.pairing import Pairs
from anymodal.projection import load_projection
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.training import TrainingResult, train_translation
from anymodal.projection.translation import ACTIVATIONS, Translation

RNG = np.random.default_rng(0)
CODES = np.arange(120) % 4
AUDIO = (RNG.normal(size=(4, 8))[CODES] + 0.5 * RNG.normal(size=(120, 8))).astype(np.float32)
IMAGE = (RNG.normal(size=(4, 10))[CODES] + 0.5 * RNG.normal(size=(120, 10))).astype(np.float32)
TRAIN, VALID = np.arange(80), np.arange(80, 120)
SMALL = TranslateParams(hidden=16, dim=8, batch_size=20, max_epochs=4, device="cpu")
ORIGIN = Origin(EncoderRef("a", "1", 8), EncoderRef("i", "2", 10), "class", 0)


def train(audio: np.ndarray = AUDIO, **changes: Any) -> TrainingResult:
    names = ("checkpoint", "on_epoch", "checkpoint_seconds", "measure")
    options = {name: changes.pop(name) for name in names if name in changes}
    params = TranslateParams.model_validate(SMALL.model_dump() | changes)

    def pairs(rng: np.random.Generator, /) -> Pairs:
        rows = rng.permutation(TRAIN)
        return Pairs(rows, rows, CODES[rows])

    valid = Pairs(VALID, VALID, CODES[VALID])
    return train_translation(audio, IMAGE, pairs, valid, params, 3, origin=ORIGIN, **options)


def weights(result: TrainingResult) -> bytes:
    return b"".join(v.numpy().tobytes() for v in result.translation.state_dict().values())


def test_the_default_is_the_papers_network_with_the_names_it_always_had(tmp_path: Path) -> None:
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


def test_the_artifact_has_every_setting_but_the_machines(tmp_path: Path) -> None:
    train().translation.save(tmp_path)
    settings = json.loads((tmp_path / "projection.json").read_text())["settings"]
    assert set(settings) == {*TranslateParams.model_fields, "best_epoch"} - {"seeds", "device"}
    assert settings["margin"] == 1.0


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


@pytest.mark.parametrize(
    "options", [{}, {"depth": 1}, {"depth": 3, "activation": "gelu"}, {"activation": "relu"}]
)
def test_saved_and_loaded_it_projects_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    for made in (train(**options).translation, Translation(8, 10, 16, 8, **options).eval()):
        made.origin = made.origin or ORIGIN
        made.save(tmp_path)
        loaded = load_projection(tmp_path)
        np.testing.assert_array_equal(loaded.project("audio", AUDIO), made.project("audio", AUDIO))
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
        loaded.save(tmp_path)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("settings", [{"depth": 3}, {"depth": "deep"}, {"activation": "swish"}])
def test_settings_that_do_not_fit_the_weights_are_refused(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    train().translation.save(tmp_path)
    path = tmp_path / "projection.json"
    header = json.loads(path.read_text())
    header["settings"] |= settings
    path.write_text(json.dumps(header))
    with pytest.raises(AnymodalError, match="other weights"):
        load_projection(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 3},
        {"activation": "gelu"},
        {"dropout": 0.4},
        {"weight_decay": 0.1},
        {"loss": "infonce"},
        {"loss": "infonce", "temperature": 0.3},
    ],
)
def test_every_option_trains_repeatably_and_makes_a_difference(options: dict[str, Any]) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = train(**options)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert weights(train(**options)) == weights(first)
    rest = {name: value for name, value in options.items() if name != "temperature"}
    for other in ({}, rest if rest != options else {}):
        assert (
            hashlib.sha256(weights(train(**other))).digest()
            != hashlib.sha256(weights(first)).digest()
        )
    assert first.history[-1]["valid_loss"] < first.history[0]["valid_loss"]


def test_margin_matters_to_the_hinge_alone_and_temperature_to_infonce_alone() -> None:
    assert weights(train(temperature=0.5)) == weights(train())
    assert weights(train(loss="infonce", margin=0.2)) == weights(train(loss="infonce"))


def test_weight_decay_is_decoupled_and_leaves_biases_and_norms_alone() -> None:
    # no gradient reaches an unused input: its weights move by the decay alone, (1 − lr·wd) a step
    audio = AUDIO.copy()
    audio[:, 2] = 1.0  # constant: its scale is 0
    before = Translation(8, 10, 16, 8, seed=3).state_dict()
    result = train(weight_decay=0.5, learning_rate=0.01, max_epochs=2, audio=audio)
    best = result.best_epoch
    steps = best * 4
    name = "branches.audio.hidden.weight"
    expected = before[name][:, 2] * (1 - 0.01 * 0.5) ** steps
    torch.testing.assert_close(result.translation.state_dict()[name][:, 2], expected)
    plain = train(learning_rate=0.01, max_epochs=1).translation.state_dict()
    decayed = train(weight_decay=1e-9, learning_rate=0.01, max_epochs=1).translation.state_dict()
    for key in plain:
        torch.testing.assert_close(plain[key], decayed[key])


class Stop(Exception):
    pass


def test_dropout_and_decay_resume_to_the_same_bits(tmp_path: Path) -> None:
    options = {"dropout": 0.3, "weight_decay": 0.01, "depth": 3, "loss": "infonce"}
    whole = train(**options)

    def stop(entry: dict[str, float]) -> None:
        if entry["epoch"] == 2:
            raise Stop

    path = tmp_path / "c.safetensors"
    with pytest.raises(Stop):
        train(**options, checkpoint=path, checkpoint_seconds=0, on_epoch=stop)
    assert path.exists()
    assert weights(train(**options, checkpoint=path)) == weights(whole)


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


def test_what_is_measured_joins_the_history_and_steers_nothing() -> None:
    seen: list[bool] = []

    def measure(translation: Translation) -> dict[str, float]:
        seen.append(translation.training)
        return {"length": float(np.linalg.norm(translation.project("audio", AUDIO[:1])))}

    result = train(measure=measure)
    assert [entry["length"] for entry in result.history] == pytest.approx([1.0] * 4)
    assert weights(result) == weights(train())
    assert len(seen) == 4


def test_bad_options_are_refused() -> None:
    for bad in ({"depth": 0}, {"activation": "tanh"}, {"dropout": 1.0}, {"weight_decay": -1},
                {"loss": "triplet"}, {"temperature": 0}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(bad))):
            TranslateParams.model_validate(bad)
