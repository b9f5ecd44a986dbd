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

from anymodal.core.errors import AnymodalError
from anymodal.encoders import registry
from anymodal.encoders.image import keras_model
from anymodal.encoders.image.preprocessing import fractional_square
from anymodal.encoders.weights import keras_h5
from helpers import untrained_keras

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed"),
]
NAMES = ("resnet50", "vgg16")
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8), np.zeros((50, 90, 3), np.uint8)]


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
def test_file_is_one_that_keras_itself_loads(name, path, encoder):
    """The file by hand is what Keras takes for one of its publisher's, and both read the same."""
    model = keras_model.untrained_model(name, "channels_last")
    model.load_weights(path(name))
    expected, got = keras_model.tensors_of(model), encoder(name)._tensors()
    assert sum(tensor.size for tensor in got.values()) == registry.info(name).parameters
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
    squares = np.stack([fractional_square(picture, 224) for picture in IMAGES]).astype(np.float32)
    bgr = squares[..., ::-1] - np.float32([103.939, 116.779, 123.68])
    pixels = torch.from_numpy(np.ascontiguousarray(bgr.transpose(0, 3, 1, 2)))
    with torch.inference_mode():
        expected = plain(name, encoder(name)._tensors(), pixels).numpy()
    got = encoder(name).embed(IMAGES)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_square_is_the_centre_of_256_pixels_and_smoothed_where_it_shrinks():
    picture = RNG.integers(0, 256, (256, 320, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fractional_square(picture, 224), picture[16:240, 48:272])
    checks = np.indices((1024, 1024)).sum(axis=0) % 2 * 255
    square = fractional_square(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8), 224)
    assert square.min() >= 126 and square.max() <= 129


def renamed(file):
    """Keras itself goes by the order alone."""
    for number, old in enumerate(file.attrs["layer_names"]):
        file.move(old, f"layer_{number}")
    count = len(file.attrs["layer_names"])
    file.attrs["layer_names"] = [f"layer_{number}".encode() for number in range(count)]


def shuffled(file):
    """In pieces, as Keras writes lists that are too long for one attribute."""
    names = list(file.attrs["layer_names"])[::-1]
    del file.attrs["layer_names"]
    file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:5], names[5:]


@pytest.mark.parametrize("change", [renamed, shuffled])
def test_layers_of_other_names_or_in_another_order(change, path, tmp_path, encoder):
    shutil.copy(path("vgg16"), tmp_path / "changed.h5")
    with h5py.File(tmp_path / "changed.h5", "r+") as file:
        change(file)
    again = registry.get("vgg16", "cpu", tmp_path / "changed.h5")
    assert again.version == encoder("vgg16").version


def refusal(name: str, weights: Path) -> str:
    with pytest.raises(AnymodalError) as caught:
        registry.get(name, "cpu", weights)
    message = str(caught.value)
    assert "\n" not in message and str(weights) in message
    return message


def test_wrong_files_are_refused(path, tmp_path):
    got = refusal("vgg16", path("resnet50"))
    assert "does not hold vgg16" in got and "106 layers" in got and "not 13" in got
    shutil.copy(path("resnet50"), tmp_path / "top.h5")
    with h5py.File(tmp_path / "top.h5", "r+") as file:
        names = [b"predictions/kernel:0", b"predictions/bias:0"]
        file.create_group("predictions").attrs["weight_names"] = names
        for name, shape in zip(names, ((2048, 1000), (1000,)), strict=True):
            file["predictions"][name] = np.zeros(shape, np.float32)
        layers = [*keras_h5._names(file, "layer_names"), "predictions"]
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
    assert "the file named notop" in refusal("resnet50", tmp_path / "top.h5")

    torn = tmp_path / "torn.h5"
    torn.write_bytes(path("vgg16").read_bytes()[:-1000])
    assert "is not a whole .h5 file" in refusal("vgg16", torn)

    model = keras_model.untrained_model("vgg16", "channels_last")
    model.save_weights(tmp_path / "new.weights.h5")
    assert "as Keras 2 wrote them" in refusal("vgg16", tmp_path / "new.weights.h5")


def test_settings_of_keras_are_left_alone_and_do_not_matter(path, encoder):
    import keras

    keras.config.set_floatx("float16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = registry.get("vgg16", "cpu", path("vgg16"))
        got = made.embed(IMAGES)
        assert keras.config.floatx() == "float16"
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert keras.config.image_data_format() == "channels_last"
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
    assert made.version == encoder("vgg16").version
    np.testing.assert_array_equal(got, encoder("vgg16").embed(IMAGES))


def test_pickled_encoder_is_the_same(path, encoder):
    again = pickle.loads(pickle.dumps(encoder("resnet50")))
    assert again.version == encoder("resnet50").version
    np.testing.assert_array_equal(again.embed(IMAGES), encoder("resnet50").embed(IMAGES))
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


def test_pytorch_is_chosen_and_other_backends_are_refused(monkeypatch):
    import keras

    script = "from anymodal.encoders.image.keras_model import keras_backend as get; import os"
    chosen = in_process(f"{script}; print(get('vgg16'), os.environ.get('KERAS_BACKEND'))")
    assert chosen == "torch None"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(AnymodalError, match="runs on jax: set KERAS_BACKEND=torch"):
        registry.get("vgg16", "cpu")


ON_TENSORFLOW = """
import json, pickle, sys
import numpy as np
from anymodal import encoders
from anymodal.core.errors import AnymodalError
path, out = sys.argv[1:]
encoder = encoders.get("resnet50", "cpu", path)
rows = encoder.embed(np.load(out + ".npy"))
values = {"version": encoder.version, "kind": type(encoder).__name__, "rows": rows.tolist()}
with open(out, "wb") as file:
    pickle.dump(encoder, file)
for change in ({"precision": "bfloat16"}, {"device": "cuda"}):
    try:
        encoders.get("resnet50", **{"device": "cpu", "weights": path} | change)
    except AnymodalError as error:
        values[next(iter(change))] = str(error)
print(json.dumps(values))
"""


def test_both_backends_agree(path, tmp_path, encoder):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("tensorflow is not installed")
    here, images = encoder("resnet50"), [IMAGES[0], IMAGES[0][::-1]]
    np.save(tmp_path / "pickled.npy", images)
    words = path("resnet50"), tmp_path / "pickled"
    there = json.loads(in_process(ON_TENSORFLOW, *words, KERAS_BACKEND="tensorflow"))
    assert (there["kind"], there["version"]) == ("KerasTensorFlowEncoder", here.version)
    expected = here.embed(images)
    np.testing.assert_allclose(there["rows"], expected, atol=1e-5 * np.abs(expected).max())
    assert there["precision"] == "resnet50 computes in float32 only; it cannot use bfloat16"
    assert "has no device 'cuda'" in there["device"]
    # what TensorFlow's process pickled becomes a network on PyTorch here
    again = pickle.loads((tmp_path / "pickled").read_bytes())
    np.testing.assert_array_equal(again.embed(images), expected)
