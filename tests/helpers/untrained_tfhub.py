"""Untrained networks in the form of the SavedModels google/yamnet/1 and google/vggish/1.

Layers, front ends and call signatures are those of the publishers' code (tensorflow/models,
research/audioset: yamnet/features.py, yamnet/yamnet.py, yamnet/export.py, vggish/vggish_slim.py,
vggish/vggish_export_tfhub.py), written anew; weights are random. Batch normalisation has the
statistics of its own activations on noise, so that signals neither die nor blow up with depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE = 16_000
FRAME, STEP, FFT = 400, 160, 512
BANDS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7500.0
PATCH_FRAMES = 96
PATCH_SAMPLES = (PATCH_FRAMES - 1) * STEP + FRAME
CLASSES = 521
SEED = 3


class FrontEnd(NamedTuple):
    """What differs between the two networks' log-mel front ends."""

    offset: float
    """Added to mel magnitudes before the logarithm."""
    hop: int
    """Frames from one patch to the next."""
    pads: bool
    """Whether zeros are appended until every sample lies in a patch."""


YAMNET = FrontEnd(offset=0.001, hop=48, pads=True)
VGGISH = FrontEnd(offset=0.01, hop=96, pads=False)

# (stride, channels) of the separable convolutions after the first, plain one
_SEPARABLE = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)]
_SEPARABLE += [(1, 512)] * 5 + [(2, 1024), (1, 1024)]
_VGGISH_CONVOLUTIONS = [[64], [128], [256, 256], [512, 512]]
VGGISH_HIDDEN = 4096


def write_untrained(name: str, folder: Path, hidden: int = VGGISH_HIDDEN) -> Path:
    """Write the SavedModel of `yamnet` or `vggish` into `folder`; the path to load it from.

    `hidden`: width of vggish's two dense layers before the last, 4096 in the published network.
    """
    import tensorflow as tf

    path = folder / name
    with tf.device("/CPU:0"):
        tf.saved_model.save(build(name, folder, hidden), str(path))
    return path


def build(name: str, folder: Path, hidden: int = VGGISH_HIDDEN):
    """The network itself, a `tf.Module`; yamnet's list of classes is written into `folder`."""
    return _yamnet(folder) if name == "yamnet" else _vggish(hidden)


def log_mel(waveform, front: FrontEnd):
    """Tensors: sound (samples,) → the spectrogram (frames, 64) and its patches (n, 96, 64)."""
    import tensorflow as tf

    if front.pads:
        samples = tf.shape(waveform)[0]
        hop = front.hop * STEP
        more = tf.maximum(0, samples - PATCH_SAMPLES)
        wanted = PATCH_SAMPLES + hop * ((more + hop - 1) // hop)
        waveform = tf.pad(waveform, [[0, wanted - samples]])
    magnitude = tf.abs(tf.signal.stft(waveform, FRAME, STEP, FFT))
    bank = tf.signal.linear_to_mel_weight_matrix(BANDS, FFT // 2 + 1, RATE, LOWEST_HZ, HIGHEST_HZ)
    spectrogram = tf.math.log(tf.matmul(magnitude, bank) + front.offset)
    return spectrogram, tf.signal.frame(spectrogram, PATCH_FRAMES, front.hop, axis=0)


def _yamnet(folder: Path):
    import tensorflow as tf

    class_map = folder / "yamnet_class_map.csv"
    rows = [f"{i},/m/{i:04d},class {i}\n" for i in range(CLASSES)]
    class_map.write_text("index,mid,display_name\n" + "".join(rows))

    class Yamnet(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            rng = np.random.default_rng(SEED)
            self.layers = list(_mobilenet(rng, _noise_patches(rng, YAMNET)))
            scale = 1024**-0.5
            self.kernel = tf.Variable(_normal(rng, (1024, CLASSES), scale), name="logits/kernel")
            self.bias = tf.Variable(tf.zeros(CLASSES), name="logits/bias")
            self.class_map = tf.saved_model.Asset(str(class_map))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def __call__(self, waveform):
            spectrogram, patches = log_mel(waveform, YAMNET)
            net = patches[..., None]
            for layer in self.layers:
                net = layer(net)
            embeddings = tf.reduce_mean(net, axis=[1, 2])
            scores = tf.sigmoid(embeddings @ self.kernel + self.bias)
            return scores, embeddings, spectrogram

        @tf.function(input_signature=[])
        def class_map_path(self):
            return self.class_map.asset_path

    return Yamnet()


def _mobilenet(rng: np.random.Generator, net) -> Iterator:
    """Layers of the MobileNet v1 body; each one's statistics are taken from `net`."""
    import tensorflow as tf

    class Layer(tf.Module):
        """Convolution, batch normalisation without scale, ReLU."""

        def __init__(self, kernel: np.ndarray, stride: int, depthwise: bool, name: str) -> None:
            super().__init__()
            self.stride = stride
            self.depthwise = depthwise
            self.kernel = tf.Variable(kernel, name=f"{name}/kernel")
            self.mean = self.variance = self.beta = None

        def convolve(self, net):
            step = [1, self.stride, self.stride, 1]
            convolution = tf.nn.depthwise_conv2d if self.depthwise else tf.nn.conv2d
            return convolution(net, self.kernel, step, "SAME")

        def calibrate(self, net) -> None:
            mean, variance = tf.nn.moments(self.convolve(net), [0, 1, 2])
            # variables of the published network: no gamma
            self.mean = tf.Variable(mean, trainable=False, name="moving_mean")
            self.variance = tf.Variable(variance, trainable=False, name="moving_variance")
            self.beta = tf.Variable(_normal(rng, mean.shape, 0.3), name="beta")

        def __call__(self, net):
            scale = tf.ones_like(self.beta)
            normal, _, _ = tf.compat.v1.nn.fused_batch_norm(
                self.convolve(net), scale, self.beta, self.mean, self.variance, 1e-4,
                is_training=False,
            )  # fmt: skip
            return tf.nn.relu(normal)

    def ready(kernel: np.ndarray, stride: int, depthwise: bool, name: str) -> Layer:
        nonlocal net
        layer = Layer(kernel, stride, depthwise, name)
        layer.calibrate(net)
        net = layer(net)
        return layer

    before = 32
    yield ready(_normal(rng, (3, 3, 1, before), 1 / 3), 2, False, "layer1")
    for number, (stride, channels) in enumerate(_SEPARABLE, 2):
        depthwise = _normal(rng, (3, 3, before, 1), 1 / 3)
        yield ready(depthwise, stride, True, f"layer{number}/depthwise_conv")
        pointwise = _normal(rng, (1, 1, before, channels), before**-0.5)
        yield ready(pointwise, 1, False, f"layer{number}/pointwise_conv")
        before = channels


def _vggish(hidden: int):
    import tensorflow as tf

    class Vggish(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            rng = np.random.default_rng(SEED)
            before = 1
            self.convolutions = []
            for block in _VGGISH_CONVOLUTIONS:
                self.convolutions.append([])
                for channels in block:
                    kernel = _normal(rng, (3, 3, before, channels), (2 / (9 * before)) ** 0.5)
                    self.convolutions[-1].append(_pair(kernel))
                    before = channels
            self.dense = []
            width = 6 * 4 * before
            for after in (hidden, hidden, 128):
                self.dense.append(_pair(_normal(rng, (width, after), (2 / width) ** 0.5)))
                width = after

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def __call__(self, waveform):
            net = log_mel(waveform, VGGISH)[1][..., None]
            for block in self.convolutions:
                for kernel, bias in block:
                    net = tf.nn.relu(tf.nn.conv2d(net, kernel, 1, "SAME") + bias)
                net = tf.nn.max_pool2d(net, 2, 2, "SAME")
            net = tf.reshape(net, [-1, 6 * 4 * net.shape[-1]])
            for kernel, bias in self.dense[:-1]:
                net = tf.nn.relu(net @ kernel + bias)
            kernel, bias = self.dense[-1]
            return net @ kernel + bias

    return Vggish()


def _pair(kernel: np.ndarray) -> list:
    import tensorflow as tf

    return [tf.Variable(kernel), tf.Variable(tf.zeros(kernel.shape[-1]))]


def _normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    return np.float32(scale) * rng.standard_normal(tuple(shape), dtype=np.float32)


def _noise_patches(rng: np.random.Generator, front: FrontEnd):
    """Patches of noises of many levels and colours: (n, 96, 64, 1)."""
    spectra = []
    for level in (0.003, 0.03, 0.3):
        noise = level * rng.standard_normal(PATCH_SAMPLES)
        for sound in (noise, np.cumsum(noise) / 30, np.diff(noise, append=0)):
            spectra.append(log_mel(sound.astype(np.float32), front)[1][..., None])
    return np.concatenate(spectra)
