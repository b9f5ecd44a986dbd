"""ResNet50 and VGG16 through Keras: the published file's layout, the forward pass against plain
PyTorch, both backends."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.image import keras_model
from anymodal.encoders.image.keras_applications import central_square
from anymodal.encoders.weights import keras_h5
from helpers import untrained_keras

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed"),
]
NAMES = ("resnet50", "vgg16")
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8), np.zeros((50, 90, 3), np.uint8)]


@pytest.fixture(scope="module", autouse=True)
def _on_torch():
    if keras_model.keras_backend("vgg16") != "torch":
        pytest.skip("this process' Keras runs on TensorFlow")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folder with both files, untrained, as their publisher names them."""
    folder = tmp_path_factory.mktemp("published")
    for name in NAMES:
        untrained_keras.write_untrained(name, folder)
    return folder


@pytest.fixture(scope="module")
def path(published):
    return lambda name: published / registry.info(name).files[0].name


@pytest.fixture(scope="module")
def encoder(path):
    made = {name: registry.get(name, "cpu", path(name)) for name in NAMES}
    return made.__getitem__


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_names(name, encoder, tmp_path):
    encoder(name).save_weights(tmp_path / "saved.safetensors")
    tensors = load_file(tmp_path / "saved.safetensors")
    assert sum(tensor.size for tensor in tensors.values()) == registry.info(name).parameters
    first = {"resnet50": "conv1_conv/kernel", "vgg16": "block1_conv1/kernel"}[name]
    assert tensors[first].shape == {"resnet50": (7, 7, 3, 64), "vgg16": (3, 3, 3, 64)}[name]


@pytest.mark.parametrize("name", NAMES)
def test_file_is_one_that_keras_itself_loads(name, path, encoder):
    """The file by hand is what Keras takes for one of its publisher's, and both read the same."""
    model = keras_model.untrained_model(name, "channels_last")
    model.load_weights(path(name))
    expected, got = keras_model.tensors_of(model), encoder(name)._tensors()
    assert expected.keys() == got.keys()
    for key, tensor in expected.items():
        np.testing.assert_array_equal(got[key], tensor)


def plain(name: str, tensors: dict[str, np.ndarray], pixels: torch.Tensor) -> torch.Tensor:
    """The networks written out: pixels (n, 3, 224, 224) → (n, dim)."""
    t = {key: torch.from_numpy(value.copy()) for key, value in tensors.items()}

    def conv(x, layer, stride=1, padding=0):
        kernel = t[f"{layer}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, t[f"{layer}/bias"], stride, padding)

    def norm(x, layer):
        statistics = t[f"{layer}/moving_mean"], t[f"{layer}/moving_variance"]
        return F.batch_norm(x, *statistics, t[f"{layer}/gamma"], t[f"{layer}/beta"], eps=1.001e-5)

    x = pixels
    if name == "vgg16":
        for block, convolutions in enumerate((2, 2, 3, 3, 3), 1):
            for i in range(1, convolutions + 1):
                x = F.relu(conv(x, f"block{block}_conv{i}", padding=1))
            x = F.max_pool2d(x, 2)
        return x.mean(dim=(2, 3))
    x = F.relu(norm(conv(x, "conv1_conv", 2, 3), "conv1_bn"))
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
    for stack, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(1, blocks + 1):
            layer = f"conv{stack}_block{block}"
            stride = 2 if stack > 2 and block == 1 else 1
            y = F.relu(norm(conv(x, f"{layer}_1_conv", stride), f"{layer}_1_bn"))
            y = F.relu(norm(conv(y, f"{layer}_2_conv", padding=1), f"{layer}_2_bn"))
            y = norm(conv(y, f"{layer}_3_conv"), f"{layer}_3_bn")
            if block == 1:
                x = norm(conv(x, f"{layer}_0_conv", stride), f"{layer}_0_bn")
            x = F.relu(x + y)
    return x.mean(dim=(2, 3))


@pytest.mark.parametrize("name", NAMES)
def test_embedding_is_the_networks(name, encoder):
    squares = np.stack([central_square(picture) for picture in PICTURES]).astype(np.float32)
    bgr = squares[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    pixels = torch.from_numpy(np.ascontiguousarray(bgr.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        expected = plain(name, encoder(name)._tensors(), pixels).numpy()
    got = encoder(name).embed(PICTURES)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_square_is_the_centre_of_256_pixels():
    """Where the shorter side has 256 pixels nothing is resized: the central 224 of them."""
    picture = RNG.integers(0, 256, (256, 320, 3), dtype=np.uint8)
    np.testing.assert_array_equal(central_square(picture), picture[16:240, 48:272])
    upright = picture.transpose(1, 0, 2)
    np.testing.assert_array_equal(central_square(upright), upright[48:272, 16:240])


def test_square_is_smoothed_where_it_shrinks():
    checks = np.indices((1024, 1024)).sum(axis=0) % 2 * 255
    square = central_square(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    assert square.min() >= 126 and square.max() <= 129


def test_file_with_other_layer_names_is_taken_in_its_order(path, tmp_path, encoder):
    """Keras itself goes by the order alone."""
    renamed = tmp_path / "renamed.h5"
    shutil.copy(path("vgg16"), renamed)
    with h5py.File(renamed, "r+") as file:
        names = [f"layer_{i}" for i in range(len(file.attrs["layer_names"]))]
        for old, new in zip(file.attrs["layer_names"], names, strict=True):
            file.move(old, new)
        file.attrs["layer_names"] = [name.encode() for name in names]
    assert registry.get("vgg16", "cpu", renamed).version == encoder("vgg16").version


def test_layers_in_another_order_are_found_by_name(path, tmp_path, encoder):
    shuffled = tmp_path / "shuffled.h5"
    shutil.copy(path("vgg16"), shuffled)
    with h5py.File(shuffled, "r+") as file:
        names = list(file.attrs["layer_names"])[::-1]
        del file.attrs["layer_names"]
        # in pieces, as Keras writes lists that are too long for one attribute
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:5], names[5:]
    assert registry.get("vgg16", "cpu", shuffled).version == encoder("vgg16").version


def refusal(name: str, weights: Path) -> str:
    with pytest.raises(AnymodalError) as caught:
        registry.get(name, "cpu", weights)
    message = str(caught.value)
    assert "\n" not in message and str(weights) in message
    return message


def test_wrong_files_are_refused(path, tmp_path):
    got = refusal("vgg16", path("resnet50"))
    assert "does not hold vgg16" in got and "106 layers" in got and "not 13" in got
    got = refusal("resnet50", path("vgg16"))
    assert "does not hold resnet50" in got and "not 106" in got

    shutil.copy(path("resnet50"), tmp_path / "top.h5")
    with h5py.File(tmp_path / "top.h5", "r+") as file:
        names = [b"predictions/kernel:0", b"predictions/bias:0"]
        file.create_group("predictions").attrs["weight_names"] = names
        for name, shape in zip(names, ((2048, 1000), (1000,)), strict=True):
            file["predictions"][name] = np.zeros(shape, np.float32)
        layers = [*keras_h5._names(file, "layer_names"), "predictions"]
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
    assert "the file named notop" in refusal("resnet50", tmp_path / "top.h5")

    for share in (0.3, 0.999):
        torn = tmp_path / "torn.h5"
        content = path("vgg16").read_bytes()
        torn.write_bytes(content[: int(share * len(content))])
        assert "is not a whole .h5 file" in refusal("vgg16", torn)

    model = keras_model.untrained_model("vgg16", "channels_last")
    model.save_weights(tmp_path / "new.weights.h5")
    assert "as Keras 2 wrote them" in refusal("vgg16", tmp_path / "new.weights.h5")

    narrow = {n: np.zeros(s, np.float32) for n, s in keras_model.shapes_of(model).items()}
    narrow["block3_conv2/bias"] = np.zeros(255, np.float32)
    untrained_keras.write_legacy(tmp_path / "narrow.h5", narrow, model)
    assert "or other shapes" in refusal("vgg16", tmp_path / "narrow.h5")


def test_settings_of_keras_are_left_alone_and_do_not_matter(path, encoder):
    import keras

    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = registry.get("vgg16", "cpu", path("vgg16"))
        got = made.embed(PICTURES)
        assert keras.config.floatx() == "float16"
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert keras.config.image_data_format() == "channels_last"
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert made.version == encoder("vgg16").version
    np.testing.assert_array_equal(got, encoder("vgg16").embed(PICTURES))


def test_pickled_encoder_is_the_same(path, encoder):
    again = pickle.loads(pickle.dumps(encoder("resnet50")))
    assert again.version == encoder("resnet50").version
    np.testing.assert_array_equal(again.embed(PICTURES), encoder("resnet50").embed(PICTURES))
    short = registry.get("vgg16", "cpu", path("vgg16"), "bfloat16")
    assert pickle.loads(pickle.dumps(short)).version == short.version


def test_missing_keras_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(AnymodalError, match=r"^resnet50 needs Keras.*'anymodal\[keras\]'$"):
        registry.get("resnet50", "cpu")


def in_process(script: str, *words: object, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env=kept | {"CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_pytorch_is_chosen_unless_something_else_is():
    script = (
        "import os; from anymodal.encoders.image.keras_model import keras_backend\n"
        "from anymodal.core.errors import AnymodalError\n"
        "try: print(keras_backend('vgg16'), os.environ.get('KERAS_BACKEND'))\n"
        "except AnymodalError as error: print(error)"
    )
    assert in_process(script) == "torch None"


def test_other_backends_are_refused(monkeypatch):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(AnymodalError, match="runs on jax: set KERAS_BACKEND=torch"):
        registry.get("vgg16", "cpu")


ON_TENSORFLOW = """
import json, pickle, sys
import numpy as np
from anymodal import encoders
from anymodal.core.errors import AnymodalError
weights, pictures, out = sys.argv[1:]
with np.load(pictures) as archive:
    items = list(archive.values())
found = {}
for name in ("resnet50", "vgg16"):
    path = f"{weights}/{encoders.info(name).files[0].name}"
    encoder = encoders.get(name, "cpu", path)
    rows = encoder.embed(items)
    found[name] = [type(encoder).__name__, encoder.version, rows.tolist()]
    alone = np.concatenate([encoder.embed([item]) for item in items])
    assert np.all(np.abs(alone - rows) <= 1e-5 * np.abs(rows).max(axis=1, keepdims=True))
with open(out, "wb") as file:
    pickle.dump(encoder, file)
encoder.save_weights(out + ".safetensors")
for change in ({"precision": "bfloat16"}, {"device": "cuda"}):
    try:
        encoders.get(name, **{"device": "cpu", "weights": path} | change)
    except AnymodalError as error:
        found[next(iter(change))] = str(error)
print(json.dumps(found))
"""


def test_both_backends_agree(published, tmp_path, encoder):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed")
    np.savez(tmp_path / "pictures.npz", *PICTURES)
    words = published, tmp_path / "pictures.npz", tmp_path / "pickled"
    found = json.loads(in_process(ON_TENSORFLOW, *words, KERAS_BACKEND="tensorflow"))
    for name in NAMES:
        kind, version, rows = found[name]
        assert kind == "KerasTensorFlowEncoder" and version == encoder(name).version
        expected = encoder(name).embed(PICTURES)
        np.testing.assert_allclose(rows, expected, atol=1e-5 * np.abs(expected).max())
    assert found["precision"] == "vgg16 computes in float32 only; it cannot use bfloat16"
    assert "has no device 'cuda'" in found["device"]
    # what TensorFlow's process saved and pickled becomes a network on PyTorch here
    expected = encoder("vgg16").embed(PICTURES)
    for again in (
        pickle.loads((tmp_path / "pickled").read_bytes()),
        registry.get("vgg16", "cpu", tmp_path / "pickled.safetensors"),
    ):
        assert again.version == encoder("vgg16").version
        np.testing.assert_array_equal(again.embed(PICTURES), expected)
