"""Untrained networks in the form of the SavedModels google/yamnet/1 and google/vggish/1.

Layers, front ends and call signatures are those of the publishers' code (tensorflow/models,
research/audioset: yamnet/features.py, yamnet/yamnet.py, yamnet/export.py, vggish/vggish_slim.py,
vggish/vggish_export_tfhub.py), written anew; weights are random. Batch normalisation has the
statistics of its own activations on noise, so that signals neither die nor blow up with depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

RATE = 16_000
FRAME, STEP, FFT = 400, 160, 512
BANDS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7500.0
PATCH_FRAMES = 96
PATCH_SAMPLES = (PATCH_FRAMES - 1) * STEP + FRAME
CLASSES = 521
SEED = 3


# what is added to mel magnitudes before the logarithm, frames from a patch to the next, and whether
# zeros are appended until every sample lies in a patch
YAMNET = (0.001, 48, True)
VGGISH = (0.01, 96, False)
# (stride, channels) of the separable convolutions after the first, plain one
_SEPARABLE = [(1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512)]
_SEPARABLE += [(1, 512)] * 5 + [(2, 1024), (1, 1024)]
_VGGISH_CONVOLUTIONS = [[64], [128], [256, 256], [512, 512]]
PUBLISHED_HIDDEN, HIDDEN = 4096, 64
"""Width of VGGish's dense layers: published, and where their number is not what is tested."""


def write_untrained(name: str, folder: Path) -> Path:
    """Write the SavedModel of `yamnet` or `vggish` into `folder`; the path to load it from."""
    import tensorflow as tf

    path = folder / name
    with tf.device("/CPU:0"):
        tf.saved_model.save(build(name), str(path))
    return path


def build(name: str, hidden: int = HIDDEN):
    """The network itself, a `tf.Module`."""
    return _yamnet() if name == "yamnet" else _vggish(hidden)


def log_mel(waveform, front: tuple[float, int, bool]):
    """Tensors: sound (samples,) → the spectrogram (frames, 64) and its patches (n, 96, 64)."""
    import tensorflow as tf

    offset, hop_frames, pads = front
    if pads:
        samples = tf.shape(waveform)[0]
        hop = hop_frames * STEP
        more = tf.maximum(0, samples - PATCH_SAMPLES)
        wanted = PATCH_SAMPLES + hop * ((more + hop - 1) // hop)
        waveform = tf.pad(waveform, [[0, wanted - samples]])
    magnitude = tf.abs(tf.signal.stft(waveform, FRAME, STEP, FFT))
    bank = tf.signal.linear_to_mel_weight_matrix(BANDS, FFT // 2 + 1, RATE, LOWEST_HZ, HIGHEST_HZ)
    spectrogram = tf.math.log(tf.matmul(magnitude, bank) + offset)
    return spectrogram, tf.signal.frame(spectrogram, PATCH_FRAMES, hop_frames, axis=0)


def _yamnet():
    import tensorflow as tf

    class Yamnet(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            rng = np.random.default_rng(SEED)
            self.layers = list(_mobilenet(rng, _noise_patches(rng)))
            scale = 1024**-0.5
            self.kernel = tf.Variable(_normal(rng, (1024, CLASSES), scale), name="logits/kernel")
            self.bias = tf.Variable(tf.zeros(CLASSES), name="logits/bias")

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
        def __call__(self, waveform):
            spectrogram, patches = log_mel(waveform, YAMNET)
            net = patches[..., None]
            for layer in self.layers:
                net = layer(net)
            embeddings = tf.reduce_mean(net, axis=[1, 2])
            scores = tf.sigmoid(embeddings @ self.kernel + self.bias)
            return scores, embeddings, spectrogram

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

    def layer(kernel: np.ndarray, stride: int, depthwise: bool, name: str) -> Layer:
        nonlocal net
        made = Layer(kernel, stride, depthwise, name)
        made.calibrate(net)
        net = made(net)
        return made

    before = 32
    yield layer(_normal(rng, (3, 3, 1, before), 1 / 3), 2, False, "layer1")
    for number, (stride, channels) in enumerate(_SEPARABLE, 2):
        kernel = _normal(rng, (3, 3, before, 1), 1 / 3)
        yield layer(kernel, stride, True, f"layer{number}/depthwise_conv")
        kernel = _normal(rng, (1, 1, before, channels), before**-0.5)
        yield layer(kernel, 1, False, f"layer{number}/pointwise_conv")
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


def _noise_patches(rng: np.random.Generator):
    """Patches of noises of many levels and colours: (n, 96, 64, 1)."""
    noises = [level * rng.standard_normal(PATCH_SAMPLES) for level in (0.003, 0.03, 0.3)]
    audio = [a for n in noises for a in (n, np.cumsum(n) / 30, np.diff(n, append=0))]
    return np.concatenate([log_mel(a.astype(np.float32), YAMNET)[1][..., None] for a in audio])
