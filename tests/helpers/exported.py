"""Small classifiers to export: whole ones, fitted on next to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier

from anymodal.encoders import EncoderInfo
from anymodal.encoders.base import MODALITIES, Encoder, Modality
from anymodal.encoders.mel import MelSpectrogram
from anymodal.encoders.pictures import central_square
from anymodal.encoders.torch_encoder import TorchEncoder
from anymodal.encoders.windows import audio_windows, picture
from anymodal.judge import Judge
from anymodal.model import ModalityAgnosticClassifier
from anymodal.novelty import fit_novelty
from anymodal.onnx.parity import random_items
from anymodal.projection.artifact import EncoderRef, Origin
from anymodal.projection.base import Projection
from anymodal.projection.pca import fit_pca
from anymodal.projection.translation import Translation, fit_scaler

CLASSES = ("banjo", "flute", "piano", "violin")


class TinySound(TorchEncoder):
    """One second at 4 kHz → mel spectrum → a convolution → 12 values."""

    def __init__(self, seed: int = 0) -> None:
        info = EncoderInfo("tiny_sound", "audio", 12, __name__, sample_rate=4000)
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


class TinyPicture(TorchEncoder):
    """The central square at 24 pixels → a convolution → 9 values."""

    def __init__(self, seed: int = 0) -> None:
        info = EncoderInfo("tiny_picture", "image", 9, __name__, image_size=24)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = torch.nn.Conv2d(3, 9, 3, stride=2)
        super().__init__(info, network, "cpu", "tiny 1")

    def _windows(self, item):
        yield central_square(picture(item), 24)

    def _forward(self, windows):
        pixels = (windows.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        return torch.nn.functional.elu(self.network(pixels)).mean(dim=(2, 3))


def tiny(**options: Any) -> ModalityAgnosticClassifier:
    """A classifier of the two tiny encoders; `options` are those of `classifier_of`."""
    return classifier_of({"audio": TinySound(), "image": TinyPicture()}, **options)


def classifier_of(
    networks: Mapping[Modality, Encoder],
    *,
    kind: str = "translation",
    depth: int = 2,
    activation: str = "elu",
    forest: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
    items: int = 48,
) -> ModalityAgnosticClassifier:
    """A classifier of `networks` whose parts are fitted on random sounds and pictures, a class for
    each way in which those are made. Half of such rows are novel to it."""
    rng = np.random.default_rng(0)
    rows, labels = {}, {}
    for modality in MODALITIES:
        embedded = networks[modality].embed(random_items(networks[modality], items, rng))
        spread = embedded.std(axis=0) + 1e-3
        copies = [embedded + 0.3 * spread * rng.standard_normal(embedded.shape) for _ in range(3)]
        rows[modality] = np.concatenate([embedded, *copies]).astype(np.float32)
        labels[modality] = np.resize(np.array(CLASSES), len(rows[modality]))
    origin = Origin(
        EncoderRef.of(networks["audio"]), EncoderRef.of(networks["image"]), "class", seed=0
    )
    projection = projection_of(kind, rows, depth, activation)
    projection.origin = origin
    joint = np.concatenate([projection.project(m, rows[m]) for m in MODALITIES])
    trees = RandomForestClassifier(**{"n_estimators": 30, "random_state": 0, **(forest or {})}).fit(
        joint, np.concatenate([labels[m] for m in MODALITIES])
    )
    if judge is None:
        novelty = {m: fit_novelty(rows[m], rows[m], 0.5, 4, seed=0) for m in MODALITIES}
        found = {m: one for m, one in novelty.items() if one is not None}
        judge = Judge({"audio": 1.7, "image": 0.6}, 0.02, novelty=found)
    facts = {"dataset": "made up", "pairing": "class"}
    return ModalityAgnosticClassifier(projection, trees, networks, facts, judge)


def projection_of(
    kind: str, rows: Mapping[Modality, np.ndarray], depth: int, activation: str, dim: int = 8
) -> Projection:
    """A projection with scalers of `rows`, otherwise untrained, or a PCA of `rows`."""
    audio, image = rows["audio"], rows["image"]
    if kind == "pca":
        return fit_pca(audio, image, dim)
    projection = Translation(
        audio.shape[1], image.shape[1], 16, dim, depth=depth, activation=activation
    )
    rng = np.random.default_rng(1)
    for modality in MODALITIES:
        projection.set_scaler(modality, *fit_scaler(rows[modality], np.arange(len(rows[modality]))))
        for name, tensor in projection.branches[modality].state_dict().items():
            if "norm" in name and "num_batches" not in name:  # as training would have left them
                tensor.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, tensor.shape)))
    return projection.eval()
