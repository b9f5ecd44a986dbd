"""YAMNet and VGGish through TensorFlow Hub, on SavedModels of the published form with random
weights."""

from __future__ import annotations

import importlib
import os
import pickle
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from helpers.untrained_tfhub import PATCH_SAMPLES, PUBLISHED_HIDDEN, build, write_untrained

# TensorFlow takes seconds to import: it is not imported where these tests are deselected
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        None in (find_spec("tensorflow"), find_spec("tensorflow_hub")),
        reason="tensorflow or tensorflow_hub is not installed",
    ),
]
NAMES = ("vggish", "yamnet")
RATE = 16_000
RNG = np.random.default_rng(0)
WAVEFORMS = [
    waveform.astype(np.float32)
    for waveform in (
        0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE),
        0.1 * RNG.standard_normal(RATE),
        np.zeros(RATE),
        np.where(np.arange(RATE) == 8_000, 1.0, 0.0),
    )
]


@pytest.fixture(scope="module")
def tf():
    return importlib.import_module("tensorflow")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tfhub")
    return {name: write_untrained(name, folder) for name in NAMES}


@pytest.fixture(scope="module")
def models(folders):
    hub = importlib.import_module("tensorflow_hub")
    return {name: hub.load(str(path)) for name, path in folders.items()}


@pytest.fixture(scope="module")
def ready(folders):
    return {name: registry.get(name, device="cpu", weights=path) for name, path in folders.items()}


def embeddings(model, sound: np.ndarray) -> np.ndarray:
    """All rows that the SavedModel gives, by itself."""
    result = model(sound)
    return (result[1] if isinstance(result, (list, tuple)) else result).numpy()


def assert_close(got: np.ndarray, expected: np.ndarray, relative: float) -> None:
    scale = np.abs(expected).max(axis=-1, keepdims=True)
    assert np.all(np.abs(got - expected) <= relative * scale)


def refused(name: str, path: Path, reason: str) -> None:
    with pytest.raises(AnymodalError, match=reason) as caught:
        registry.get(name, "cpu", path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_an_embedding_is_the_models_first_patch(name, ready, models):
    batch = WAVEFORMS
    got = ready[name].embed(batch)
    assert got.dtype == np.float32 and got.shape == (len(batch), registry.info(name).dim)
    for row, sound in zip(got, batch, strict=True):
        alone = embeddings(models[name], sound[:PATCH_SAMPLES])
        assert alone.shape == (1, len(row))
        assert_close(row, alone[0], 1e-5)
        # of a whole second YAMNet makes a second patch, and other kernels run for two
        assert_close(row, embeddings(models[name], sound)[0], 1e-4)
    # more windows than one pass takes
    batch = [*WAVEFORMS, *(0.1 * RNG.standard_normal((30, RATE))).astype(np.float32)]
    alone = np.concatenate([ready[name].embed([sound]) for sound in batch])
    assert_close(ready[name].embed(batch), alone, 1e-5)
    if name == "yamnet":  # mapped: the same operations on the same shapes
        np.testing.assert_array_equal(ready[name].embed(batch), alone)


def test_parameters_are_those_of_the_registry():
    """Counted in the networks themselves, YAMNet's without running statistics and classifier."""
    for name, classifier in (("vggish", 0), ("yamnet", 1024 * 521 + 521)):
        variables = build(name, PUBLISHED_HIDDEN).trainable_variables
        counted = sum(int(np.prod(variable.shape)) for variable in variables)
        assert counted - classifier == registry.info(name).parameters


@pytest.mark.parametrize("name", NAMES)
def test_saved_copy(name, ready, folders, tmp_path):
    encoder = ready[name]
    target = tmp_path / "deep" / f"{name}.safetensors"
    encoder.save_weights(target)
    again = registry.get(name, device="cpu", weights=target)
    assert again.version == encoder.version
    np.testing.assert_array_equal(again.embed(WAVEFORMS), encoder.embed(WAVEFORMS))
    (target / "stale").touch()
    again.save_weights(target)  # over itself
    encoder.save_weights(target)
    assert {p.name for p in target.iterdir()} == {p.name for p in folders[name].iterdir()}
    shutil.rmtree(target)
    with pytest.raises(AnymodalError, match=rf"{name}\.safetensors cannot be copied to"):
        again.save_weights(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_version_is_that_of_the_weights(tf, ready, folders, tmp_path):
    version = ready["vggish"].version
    assert len(version) == 16 and int(version, 16) >= 0 and version != ready["yamnet"].version
    network = tf.saved_model.load(str(folders["vggish"]))
    tf.saved_model.save(network, str(tmp_path / "again"))  # other files, the same variables
    assert registry.get("vggish", "cpu", tmp_path / "again").version == version
    bias = network.convolutions[0][0][1]
    bias.assign_add(tf.fill(bias.shape, 1e-3))
    tf.saved_model.save(network, str(tmp_path / "changed"))
    assert registry.get("vggish", "cpu", tmp_path / "changed").version != version


def test_another_process_rebuilds_them(ready, tmp_path):
    """As Ray does."""
    sound = WAVEFORMS[1]
    (tmp_path / "encoders").write_bytes(pickle.dumps([ready[name] for name in NAMES]))
    np.save(tmp_path / "sound.npy", sound)
    code = (
        "import pickle, sys, numpy as np\n"
        "encoders = pickle.load(open('encoders', 'rb'))\n"
        "assert 'torch' not in sys.modules\n"
        "for encoder in encoders:\n"
        "    np.save(f'{encoder.name}.npy', encoder.embed([np.load('sound.npy')]))\n"
        "    print(encoder.version, encoder.device)"
    )
    # what the tests set for themselves; TensorFlow imports Keras, and Keras its backend
    ours = {"TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND"}
    clean = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{ready[name].version} cpu" for name in NAMES]
    for name in NAMES:
        got = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(got, ready[name].embed([sound]))
    function, (info, device, folder, version) = ready["yamnet"].__reduce__()
    with pytest.raises(AnymodalError, match=rf"is version {version} here, and 0123 where"):
        function(info, device, folder, "0123")


@pytest.mark.parametrize("name", NAMES)
def test_folders_that_are_no_savedmodel_of_it(name, folders, tmp_path):
    other = "yamnet" if name == "vggish" else "vggish"

    given, published = {
        "yamnet": (r"\(128,\)", r"\(521, 1024, 64\)"),
        "vggish": (r"\(521, 1024, 64\)", r"\(128,\)"),
    }[name]
    wrong = f"is not the SavedModel of {name}: it gives rows of {given} values, not of {published}"
    refused(name, folders[other], wrong)
    refused(name, tmp_path / "absent", f"no weights of {name} at")
    refused(name, tmp_path, "it lacks saved_model.pb")


DATA, INDEX = "variables/variables.data-00000-of-00001", "variables/variables.index"


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("saved_model.pb", lambda b: b[: len(b) // 2], "is not a whole SavedModel"),
        (DATA, lambda b: b[:99], "is not a whole SavedModel"),
        (DATA, lambda b: b[:500_000] + bytes([b[500_000] ^ 64]) + b[500_001:], "is not a whole"),
        (INDEX, None, "lacks variables/variables.index"),
        (DATA, None, "damaged"),
    ],
)
def test_damaged_savedmodels(file, damage, reason, folders, tmp_path):
    path = shutil.copytree(folders["yamnet"], tmp_path / "damaged")
    content = (path / file).read_bytes()
    (path / file).unlink()
    if damage is not None:
        (path / file).write_bytes(damage(content))
    refused("yamnet", path, reason)


def test_foreign_savedmodels(tf, tmp_path):
    class Foreign(tf.Module):
        """What its call takes, and what it gives for that and its only variable."""

        def __init__(self, shape, initial, function):
            super().__init__()
            self.weight = tf.Variable(initial)
            signature = [tf.TensorSpec(shape, tf.float32)]
            call = lambda given: function(given, self.weight)  # noqa: E731
            self.__call__ = tf.function(call, input_signature=signature)

    images = Foreign([None, 224, 224, 3], [1.0], lambda given, weight: given * weight)
    nan = Foreign([None], tf.fill([1, 128], np.nan), lambda given, w: w + tf.reduce_sum(given))
    for model, reason in ((images, "takes no waveform"), (nan, "are not finite")):
        tf.saved_model.save(model, str(tmp_path / reason))
        refused("vggish", tmp_path / reason, reason)


def test_which_windows_go_side_by_side(ready):
    """TensorFlow really vectorises VGGish: no loop is left in the graph."""
    loops = {
        name: any(
            "While" in operation.type
            for operation in encoder._embeddings.get_concrete_function().graph.get_operations()
        )
        for name, encoder in ready.items()
    }
    assert loops == {"vggish": False, "yamnet": True}


def test_side_by_side_only_where_it_gives_the_same(tf, folders, tmp_path, monkeypatch):
    """With a vectorisation that is off by 1e-3 the windows are mapped one after the other."""
    true = registry.get("vggish", "cpu", folders["vggish"]).embed(WAVEFORMS)
    real = tf.vectorized_map
    calls = []

    def off(function, values):
        calls.append(values)
        return real(function, values) * 1.001

    monkeypatch.setattr(tf, "vectorized_map", off)
    encoder = registry.get("vggish", "cpu", folders["vggish"])
    assert calls
    assert_close(encoder.embed(WAVEFORMS), true, 1e-5)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", None])
def test_device_that_is_not_there(device, folders):
    with pytest.raises(AnymodalError, match="device"):
        registry.get("yamnet", device, folders["yamnet"])


def test_settings_of_tensorflow_stay(tf, ready):
    settings = tf.config.experimental
    for value in (True, False):
        settings.enable_tensor_float_32_execution(value)
        ready["yamnet"].embed(WAVEFORMS[:1])
        assert settings.tensor_float_32_execution_enabled() == value
    settings.enable_tensor_float_32_execution(True)
    assert tf.config.threading.get_intra_op_parallelism_threads() == 0


@pytest.mark.parametrize("module", ["tensorflow", "tensorflow_hub"])
def test_missing_tensorflow(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AnymodalError, match=rf"^yamnet needs .*{module}.*anymodal\[tf\]"):
        registry.get("yamnet")
