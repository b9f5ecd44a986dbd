"""Training: it learns, repeats itself, stops early, and refuses what cannot be learned from."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anymodal.config.params import TranslateParams
from anymodal.core.errors import AnymodalError
from anymodal.data.pairing import Pairs
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.batches import EpochPairs, batch_bounds
from anymodal.projection.training import train_translation
from anymodal.projection.translation import Translation

CLASSES, ROWS, AUDIO_DIM, IMAGE_DIM = 5, 200, 12, 20
PARAMS = TranslateParams(hidden=32, dim=16, batch_size=50, max_epochs=6, device="cpu")


def class_data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Audio, image and class of rows whose classes are clusters, unrelated across modalities and
    of very different scales."""
    rng = np.random.default_rng(seed)
    classes = np.arange(ROWS) % CLASSES
    audio = 1e3 * (rng.normal(size=(CLASSES, AUDIO_DIM))[classes] + 5)
    audio += 300 * rng.normal(size=audio.shape)
    image = 1e-2 * rng.normal(size=(CLASSES, IMAGE_DIM))[classes]
    image += 3e-3 * rng.normal(size=image.shape)
    return audio.astype(np.float32), image.astype(np.float32), classes


AUDIO, IMAGE, CODES = class_data()
TRAIN, VALID = np.arange(140), np.arange(140, ROWS)


def by_class(rows: np.ndarray) -> EpochPairs:
    """Each audio row with an image row of its class."""

    def draw(rng: np.random.Generator, /) -> Pairs:
        image = np.empty_like(rows)
        for code in range(CLASSES):
            members = rows[CODES[rows] == code]
            image[CODES[rows] == code] = rng.permutation(members)
        return Pairs(rows, image, CODES[rows])

    return draw


def changed(**changes: Any) -> TranslateParams:
    return TranslateParams.model_validate(PARAMS.model_dump() | changes)


VALID_PAIRS = by_class(VALID)(np.random.default_rng(0))


def train(params: TranslateParams = PARAMS, seed: int = 0, **options: Any) -> Any:
    return train_translation(AUDIO, IMAGE, by_class(TRAIN), VALID_PAIRS, params, seed, **options)


def weights(result: Any) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in result.translation.state_dict().items()}


def test_classes_meet_across_modalities() -> None:
    result = train(changed(max_epochs=40))
    audio = result.translation.project("audio", AUDIO)
    image = result.translation.project("image", IMAGE)
    for query, base in ((audio, image), (image, audio)):
        centroids = np.stack([base[TRAIN][CODES[TRAIN] == c].mean(0) for c in range(CLASSES)])
        guessed = (query[VALID] @ centroids.T).argmax(1)
        assert (guessed == CODES[VALID]).mean() > 0.9
    first, best = result.history[0], result.history[result.best_epoch - 1]
    assert best["valid_loss"] < 0.5 * first["valid_loss"]


def test_clip_pairs_without_classes_learn_too() -> None:
    rows = np.arange(ROWS)
    params = changed(same_class_negatives=True, max_epochs=20)
    same = np.zeros_like(rows)
    # the codes are not looked at, so that all being equal does not matter
    result = train_translation(
        AUDIO,
        IMAGE,
        lambda rng: Pairs(TRAIN, TRAIN, same[TRAIN]),
        Pairs(VALID, VALID, same[VALID]),
        params,
        0,
    )
    assert result.history[-1]["valid_loss"] < 0.7 * result.history[0]["valid_loss"]


def test_same_seed_same_bits_and_no_global_randomness() -> None:
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002 - the global state is what must stay untouched
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = train()
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    torch.manual_seed(9)
    assert weights(train()) == weights(first)
    assert weights(train(seed=1)) != weights(first)


def test_history_and_callback() -> None:
    seen: list[dict[str, float]] = []
    result = train(on_epoch=seen.append)
    assert seen == result.history
    assert [entry["epoch"] for entry in seen] == list(range(1, 7))
    assert set(seen[0]) == {"epoch", "train_loss", "valid_loss", "seconds"}
    assert result.best_epoch == 1 + int(np.argmin([entry["valid_loss"] for entry in seen]))
    assert result.device == "cpu"
    assert not result.translation.training


def test_stops_when_patience_runs_out_and_keeps_the_best() -> None:
    # a step this long makes the validation loss go up and down
    params = changed(max_epochs=200, patience=3, learning_rate=0.3)
    result = train(params)
    losses = [entry["valid_loss"] for entry in result.history]
    assert len(losses) == result.best_epoch + 3 < 200
    assert result.best_epoch == 1 + int(np.argmin(losses))
    # the same training cut off at its best epoch ends in the weights that were kept
    short = train(params.model_copy(update={"max_epochs": result.best_epoch}))
    assert weights(short) == weights(result)


def test_scalers_see_training_rows_alone() -> None:
    result = train(changed(max_epochs=1))
    mean = result.translation.branches["audio"].mean.numpy()
    np.testing.assert_allclose(mean, AUDIO[TRAIN].mean(0), rtol=1e-5)
    chosen = (np.array([3, 1, 4, 1]), np.array([5, 9, 2]))
    result = train(changed(max_epochs=1), train_rows=chosen)
    np.testing.assert_allclose(
        result.translation.branches["audio"].mean.numpy(), AUDIO[[1, 3, 4]].mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
        result.translation.branches["image"].mean.numpy(), IMAGE[[2, 5, 9]].mean(0), rtol=1e-4
    )


def test_origin_and_artifact_get_seed_and_every_setting_but_the_machines(tmp_path: Path) -> None:
    refs = EncoderRef("a", "1", AUDIO_DIM), EncoderRef("i", "2", IMAGE_DIM)
    result = train(seed=4, origin=Origin(*refs, "class", 0, {"note": "x"}))
    origin = result.translation.origin
    assert origin.seed == 4
    assert origin.settings["best_epoch"] == result.best_epoch
    assert (origin.settings["margin"], origin.settings["note"]) == (1.0, "x")
    result.translation.save(tmp_path)
    settings = json.loads((tmp_path / "projection.json").read_text())["settings"]
    assert set(settings) - {"best_epoch", "note"} == {*TranslateParams.model_fields} - {
        "seeds",
        "device",
    }


def test_memory_maps_strided_and_double_inputs_train_the_same(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    np.save(tmp_path / "a.npy", AUDIO)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    strided, double = np.asfortranarray(AUDIO)[::-1][::-1], IMAGE.astype(np.float64)
    for audio, image in ((mapped, IMAGE), (strided, double)):
        result = train_translation(audio, image, by_class(TRAIN), VALID_PAIRS, PARAMS, 0)
        assert weights(result) == weights(train())
    assert not [w for w in recwarn if "writ" in str(w.message)]


def test_a_last_batch_of_one_is_no_problem() -> None:
    rows = TRAIN[:101]
    result = train_translation(
        AUDIO, IMAGE, lambda rng: Pairs(rows, rows, CODES[rows]), VALID_PAIRS, PARAMS, 0
    )
    assert np.isfinite(result.history[-1]["train_loss"])


@pytest.mark.parametrize(
    ("pairs", "size", "expected"),
    [
        (0, 4, []),
        (1, 4, [(0, 1)]),
        (4, 4, [(0, 4)]),
        (5, 4, [(0, 5)]),
        (6, 4, [(0, 4), (4, 6)]),
        (9, 4, [(0, 4), (4, 9)]),
        (3, 2, [(0, 3)]),
    ],
)
def test_batch_bounds(pairs: int, size: int, expected: list[tuple[int, int]]) -> None:
    assert batch_bounds(pairs, size) == expected


def test_an_infinite_loss_is_told() -> None:
    params = changed(learning_rate=1e19)
    with pytest.raises(AnymodalError, match=r"became nan in epoch \d+: lower .*learning_rate"):
        train(params)


def arrays(*parts: list[Any]) -> Pairs:
    return Pairs(*(np.array(part, dtype=np.int64) for part in parts))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (arrays([], [], []), "0 training pair"),
        (arrays([0], [0], [0]), r"1 training pair\(s\), at least 2"),
        (arrays([0, 1], [0, 1], [3, 3]), "one class"),
        (arrays([0, ROWS], [0, 1], [0, 1]), "audio rows outside"),
        (arrays([0, 1], [-1, 1], [0, 1]), "image rows outside"),
    ],
)
def test_bad_pairs(pairs: Pairs, message: str) -> None:
    with pytest.raises(AnymodalError, match=message):
        train_translation(AUDIO, IMAGE, lambda rng: pairs, VALID_PAIRS, PARAMS, 0)
    with pytest.raises(AnymodalError, match=message.replace("training", "validation")):
        train_translation(AUDIO, IMAGE, by_class(TRAIN), pairs, PARAMS, 0)


def test_bad_embeddings() -> None:
    broken = AUDIO.copy()
    broken[7, 3] = np.nan
    with pytest.raises(AnymodalError, match="audio embedding 7"):
        train_translation(broken, IMAGE, by_class(TRAIN), VALID_PAIRS, PARAMS, 0)


class Stop(Exception):
    """Ends a training between two epochs."""


def stop_after(epoch: int) -> Any:
    def on_epoch(entry: dict[str, float]) -> None:
        if entry["epoch"] == epoch:
            raise Stop

    return on_epoch


def test_a_stale_checkpoint_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anymodal.projection import training

    path = tmp_path / "checkpoint.safetensors"
    write = training.save_checkpoint

    def only_after_epoch_2(path: Path, fingerprint: str, progress: Any, *rest: Any) -> None:
        if progress.epoch == 2:
            write(path, fingerprint, progress, *rest)

    monkeypatch.setattr(training, "save_checkpoint", only_after_epoch_2)
    with pytest.raises(Stop):
        train(checkpoint=path, checkpoint_seconds=0, on_epoch=stop_after(4))
    seen: list[dict[str, float]] = []
    result = train(checkpoint=path, checkpoint_seconds=0, on_epoch=seen.append)
    assert [entry["epoch"] for entry in seen] == [3, 4, 5, 6]
    assert [entry["epoch"] for entry in result.history] == [1, 2, 3, 4, 5, 6]
    whole = train()
    assert weights(result) == weights(whole)
    losses = [[e["train_loss"], e["valid_loss"]] for e in result.history]
    assert losses == [[e["train_loss"], e["valid_loss"]] for e in whole.history]
    assert not path.exists()


def test_a_checkpoint_of_a_training_that_had_ended_trains_no_more(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(Stop):
        train(checkpoint=path, checkpoint_seconds=0, on_epoch=stop_after(6))
    seen: list[Any] = []
    assert weights(train(checkpoint=path, on_epoch=seen.append)) == weights(train())
    assert seen == []


@pytest.mark.parametrize("change", ["params", "seed", "data", "pairs", "valid"])
def test_a_checkpoint_of_other_inputs_is_ignored(
    change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(Stop):
        train(checkpoint=path, checkpoint_seconds=0, on_epoch=stop_after(3))
    audio = AUDIO.copy()
    params, seed, pairs, valid = PARAMS, 0, by_class(TRAIN), VALID_PAIRS
    if change == "params":
        params = changed(margin=0.9)
    elif change == "seed":
        seed = 1
    elif change == "data":
        audio[199, 0] += 1
    elif change == "pairs":
        pairs = by_class(TRAIN[:-1])
    else:
        valid = by_class(VALID)(np.random.default_rng(1))
    seen: list[dict[str, float]] = []
    with caplog.at_level(logging.WARNING):
        train_translation(
            audio, IMAGE, pairs, valid, params, seed, checkpoint=path, on_epoch=seen.append
        )
    assert "belongs to other data or settings" in caplog.text
    assert seen[0]["epoch"] == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "foreign"])
def test_a_corrupt_checkpoint_is_ignored(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(Stop):
        train(checkpoint=path, checkpoint_seconds=0, on_epoch=stop_after(3))
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "garbage":
        path.write_bytes(b"\x00" * 100)
    else:
        torch.save({"x": torch.ones(3)}, path)
    with caplog.at_level(logging.WARNING):
        result = train(checkpoint=path)
    assert "not a readable checkpoint" in caplog.text
    assert weights(result) == weights(train())
    assert not path.exists()


def test_a_checkpoint_that_would_execute_code_is_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, mark = tmp_path / "c", tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    torch.save({"fingerprint": "", "progress": Trap()}, path)
    train(checkpoint=path)
    assert "not a readable checkpoint" in caplog.text and not mark.exists()


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
    first = train(changed(**options))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert weights(train(changed(**options))) == weights(first)
    rest = {name: value for name, value in options.items() if name != "temperature"}
    for other in ({}, rest if rest != options else {}):
        assert weights(train(changed(**other))) != weights(first)
    assert first.history[-1]["valid_loss"] < first.history[0]["valid_loss"]


def test_margin_matters_to_the_hinge_alone_and_temperature_to_infonce_alone() -> None:
    assert weights(train(changed(temperature=0.5))) == weights(train())
    infonce = [train(changed(loss="infonce", margin=margin)) for margin in (0.2, 1.0)]
    assert weights(infonce[0]) == weights(infonce[1])


def test_weight_decay_is_decoupled_and_leaves_biases_and_norms_alone() -> None:
    # no gradient reaches an unused input: its weights move by the decay alone, (1 − lr·wd) a step
    audio = AUDIO.copy()
    audio[:, 2] = 1.0  # constant: its scale is 0
    before = Translation(AUDIO_DIM, IMAGE_DIM, PARAMS.hidden, PARAMS.dim, seed=0).state_dict()
    params = changed(weight_decay=0.5, learning_rate=0.01, max_epochs=2)
    result = train_translation(audio, IMAGE, by_class(TRAIN), VALID_PAIRS, params, 0)
    steps = result.best_epoch * 3
    name = "branches.audio.hidden.weight"
    expected = before[name][:, 2] * (1 - 0.01 * 0.5) ** steps
    torch.testing.assert_close(result.translation.state_dict()[name][:, 2], expected)
    plain, decayed = (
        train(changed(weight_decay=decay, learning_rate=0.01, max_epochs=1)).translation
        for decay in (0, 1e-9)
    )
    torch.testing.assert_close(plain.state_dict(), decayed.state_dict())


def test_dropout_and_decay_resume_to_the_same_bits(tmp_path: Path) -> None:
    params = changed(dropout=0.3, weight_decay=0.01, depth=3, loss="infonce")
    path = tmp_path / "c"
    with pytest.raises(Stop):
        train(params, checkpoint=path, checkpoint_seconds=0, on_epoch=stop_after(2))
    assert path.exists()
    assert weights(train(params, checkpoint=path)) == weights(train(params))


def test_what_is_measured_joins_the_history_and_steers_nothing() -> None:
    def measure(translation: Translation) -> dict[str, float]:
        return {"length": float(np.linalg.norm(translation.project("audio", AUDIO[:1])))}

    result = train(measure=measure)
    assert [entry["length"] for entry in result.history] == pytest.approx([1.0] * 6)
    assert weights(result) == weights(train())
