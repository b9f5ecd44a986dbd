"""Small classifiers to save and export: whole ones, fitted on next to nothing."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import RandomForestClassifier

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.classifier.open_set import OpenSetCalibrator, fit_novelty
from anymodal.classifier.reference import COLUMNS, Reference
from anymodal.core.modality import MODALITIES
from anymodal.encoders import registry
from anymodal.encoders.audio.mel import MelSpectrogram
from anymodal.encoders.audio.musicnn import MusiCNN, MusicnnEncoder
from anymodal.encoders.image.efficientnet_lite import EfficientNet, EfficientNetLiteEncoder
from anymodal.encoders.image.preprocessing import central_square
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.torch_encoder import TorchEncoder
from anymodal.encoders.windows import audio_windows, rgb_image
from anymodal.export.parity import random_items
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.pca import fit_pca
from anymodal.projection.translation import Translation, fit_scaler
from helpers.untrained import write_untrained

CLASSES = ("banjo", "flute", "piano", "violin")


class TinyAudio(TorchEncoder):
    """One second at 4 kHz → mel spectrum → a convolution → 12 values."""

    def __init__(self, seed=0):
        info = EncoderInfo("tiny_audio", "audio", 12, __name__, sample_rate=4000)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = torch.nn.Conv1d(16, 6, 5)
        super().__init__(info, network, "cpu", "tiny 1")
        self._mel = MelSpectrogram(4000, 256, 128, 16)

    def _windows(self, item):
        return audio_windows(item, 4000)

    def _front(self, windows):
        return torch.log10(1e4 * self._mel(windows) + 1.0)

    def _forward(self, windows):
        x = torch.relu(self.network(windows.transpose(1, 2)))
        return torch.cat([x.amax(dim=2), x.mean(dim=2)], dim=1)


class TinyImage(TorchEncoder):
    """The central square at 24 pixels → a convolution → 9 values."""

    def __init__(self):
        info = EncoderInfo("tiny_image", "image", 9, __name__, image_size=24)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = torch.nn.Conv2d(3, 9, 3, stride=2)
        super().__init__(info, network, "cpu", "tiny 1")

    def _windows(self, item):
        yield central_square(rgb_image(item), 24)

    def _forward(self, windows):
        pixels = (windows.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        return torch.nn.functional.elu(self.network(pixels)).mean(dim=(2, 3))


@cache
def untrained(name):
    """A registered encoder, such as musicnn or OpenL3, with seeded weights: shared."""
    info = registry.info(name)
    if name.startswith(("openl3", "vgg16")):
        with tempfile.TemporaryDirectory() as folder:
            return registry.get(name, "cpu", write_untrained(name, Path(folder)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if info.modality == "audio":
            return MusicnnEncoder(info, MusiCNN(), "cpu")
        network = EfficientNet.from_name(name.replace("_", "-"))
    network._fc = torch.nn.Identity()
    return EfficientNetLiteEncoder(info, network, "cpu")


@cache
def untrained_classifier():
    """A classifier of two registered encoders, which can be saved and loaded: shared."""
    networks = {"audio": untrained("musicnn_mtt"), "image": untrained("efficientnet_lite0")}
    return classifier_of(networks, items=8)


def tiny(**options):
    """A classifier of the two tiny encoders; `options` are those of `classifier_of`."""
    return classifier_of({"audio": TinyAudio(), "image": TinyImage()}, **options)


def classifier_of(
    networks, *, kind="translation", depth=2, activation="elu", forest=None, calibrator=None,
    items=48,
):  # fmt: skip
    """A classifier of `networks` whose parts are fitted on random items, one class for each kind of
    those. Half of such rows are novel to it."""
    rows = {m: embedded(networks[m], items) for m in MODALITIES}
    projection = projection_of(kind, rows, depth, activation)
    refs = [EncoderRef.of(networks[m]) for m in MODALITIES]
    projection.origin = Origin(*refs, "class", seed=0)
    joint = np.concatenate([projection.project(m, rows[m]) for m in MODALITIES])
    labels = np.concatenate([np.resize(CLASSES, len(rows[m])) for m in MODALITIES])
    trees = RandomForestClassifier(**{"n_estimators": 30, "random_state": 0, **(forest or {})})
    if calibrator is None:
        novelty = {m: fit_novelty(rows[m], rows[m], 0.5, 4, seed=0) for m in MODALITIES}
        calibrator = OpenSetCalibrator(
            temperatures={"audio": 1.7, "image": 0.6}, floor=0.02, novelty=novelty
        )
    table = pd.DataFrame(dict.fromkeys(COLUMNS, labels))
    table["start_s"] = np.arange(len(labels)) / 2
    table["modality"] = np.repeat(MODALITIES, [len(rows[m]) for m in MODALITIES])
    facts = {"dataset": "synthetic", "pairing": "class"}
    return ModalityAgnosticClassifier(
        projection, trees.fit(joint, labels), networks, facts, calibrator, Reference(table, joint)
    )


_EMBEDDED = {}


def embedded(network, items):
    """Embeddings of random items and of noisy copies of each, float32 (4 items, dim)."""
    key = network.name, network.version, items
    if key not in _EMBEDDED:
        rng = np.random.default_rng(0)
        rows = network.embed(random_items(network, items, rng))
        noise = 0.3 * (rows.std(axis=0) + 1e-3) * rng.standard_normal((3, *rows.shape))
        _EMBEDDED[key] = np.concatenate([rows, *(rows + noise)]).astype(np.float32)
    return _EMBEDDED[key]


def projection_of(kind, rows, depth, activation, dim=8):
    """A projection with scalers of `rows`, otherwise untrained, or a PCA of `rows`."""
    audio, image = rows["audio"], rows["image"]
    if kind == "pca":
        return fit_pca(audio, image, dim)
    projection = Translation(
        audio.shape[1], image.shape[1], 16, dim, depth=depth, activation=activation
    )
    rng = np.random.default_rng(1)
    for m in MODALITIES:
        projection.set_scaler(m, *fit_scaler(rows[m], np.arange(len(rows[m]))))
        for name, tensor in projection.branches[m].state_dict().items():
            if "norm" in name and "num_batches" not in name:  # as training would have left them
                tensor.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, tensor.shape)))
    return projection.eval()
