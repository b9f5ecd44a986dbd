"""YAMNet and VGGish, as published on TensorFlow Hub (SavedModels google/yamnet/1, google/vggish/1).

Input        one second at 16 kHz, of which the network sees the first 15,600 samples (0.975 s):
             96 spectra of 25 ms, one every 10 ms, 64 mel bands, computed inside the model.
Embedding    that of the one patch of 0.96 s that lies within the second. YAMNet: 1024 values, the
             mean of its last map (MobileNet v1; Plakal and Ellis, 2019). VGGish: 128 values, its
             last layer (Hershey et al., ICASSP 2017), without the principal components and 8-bit
             rounding of the embeddings that AudioSet ships.
Parameters   are counted up to the embedding: YAMNet's without the classifier.
Source       github.com/tensorflow/models, research/audioset.

The models take one waveform a call. YAMNet's windows are mapped one after the other inside one
graph: side by side they change by 2e-5 of their largest value with the batch, more than an
embedding may. VGGish reads 271 MB of dense weights every call, so its windows go side by side
(`tf.vectorized_map`) wherever a loaded model gives the same so.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anymodal.core.errors import AnymodalError
from anymodal.core.modality import WINDOW_SECONDS
from anymodal.core.storage import atomic_folder
from anymodal.encoders.batched import BatchedEncoder
from anymodal.encoders.registry import EncoderInfo
from anymodal.encoders.tensorflow_runtime import (
    Place,
    exact,
    import_tensorflow,
    one_line,
    resolve_place,
)
from anymodal.encoders.weights.files import locate
from anymodal.encoders.weights.tensors import Tensors
from anymodal.encoders.windows import audio_windows

SAMPLE_RATE = 16_000
PATCH_SAMPLES = 15_600
"""96 frames, 160 samples apart, of 400 samples."""
_WINDOWS_PER_PASS = {"cpu": 16}
_WINDOWS_PER_PASS_ELSEWHERE = 64
_SAME = 1e-5
"""Difference, relative to a row's largest value, that an embedding may show between batches."""


class _Model(NamedTuple):
    """What is published of a model, beyond its registry entry."""

    outputs: tuple[int, ...]
    """Width of each matrix that a call gives; its rows are patches, or spectra."""
    embedding: int
    """Which of them holds the embeddings."""
    side_by_side: bool
    patch: str


_MODELS = {
    "yamnet": _Model((521, 1024, 64), 1, False, "patch"),
    "vggish": _Model((128,), 0, True, "example"),
}
PREPROCESSING = "{} 1: 16 kHz, 1 s windows; {} of samples 0 to 15600"


class TfHubEncoder(BatchedEncoder):
    """One second of audio → an embedding. `get("yamnet")` builds it from a SavedModel's folder."""

    def __init__(self, info: EncoderInfo, device: str, folder: Path) -> None:
        self._tf, hub = import_tensorflow(info.name)
        self._info = info
        self._asked = device
        self._place = resolve_place(self._tf, device)
        self.device = self._place.label
        self._folder = folder.absolute()
        self._model = _MODELS[info.name]
        self._network = _loaded(self._tf, hub, self._place, info.name, self._folder)
        windows = _WINDOWS_PER_PASS.get(self.device, _WINDOWS_PER_PASS_ELSEWHERE)
        text = PREPROCESSING.format(info.name, self._model.patch)
        super().__init__(info, self._tensors(), text, windows)
        self._samples = round(WINDOW_SECONDS * SAMPLE_RATE)
        self._embeddings = self._verified()

    def save_weights(self, path: str | Path) -> None:
        """Write a copy of the SavedModel's folder, in place of what is at `path` once complete."""
        try:
            with atomic_folder(path) as folder:
                shutil.copytree(self._folder, folder, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise AnymodalError(
                f"{self._folder} cannot be copied to {path} ({one_line(error)})"
            ) from error

    def __reduce__(self) -> tuple[Callable[..., TfHubEncoder], tuple[object, ...]]:
        # neither graph nor variables can be pickled: another process loads the folder itself
        return _rebuilt, (self._info, self._asked, self._folder, self.version)

    def _tensors(self) -> Tensors:
        return _variables(self._tf, self._folder)

    def _windows(self, item: np.ndarray) -> Iterator[np.ndarray]:
        for window in audio_windows(item, self._samples):
            yield window[:PATCH_SAMPLES]

    def _run(self, windows: np.ndarray) -> np.ndarray:
        with exact(self._tf, self._place):
            return self._embeddings(self._tf.constant(windows)).numpy()

    def _single(self, waveform: Any) -> Any:
        """Embedding (dim,) of one waveform (PATCH_SAMPLES,), both tensors."""
        return self._tf.nest.flatten(self._network(waveform))[self._model.embedding][0]

    def _verified(self) -> Callable[[Any], Any]:
        """Waveforms → what the model gives for each; `AnymodalError` for another SavedModel."""
        rng = np.random.default_rng(0)
        tone = np.sin(0.2 * np.arange(PATCH_SAMPLES))
        waveforms = np.stack([0.1 * rng.standard_normal(PATCH_SAMPLES), tone]).astype(np.float32)
        wrong = f"{self._folder} is not the SavedModel of {self.name}"
        tf = self._tf
        with exact(tf, self._place):
            try:
                matrices = tf.nest.flatten(self._network(tf.constant(waveforms[0])))
                widths = tuple(matrix.shape[1] for matrix in matrices)
            # whatever a foreign model raises when it is called with a waveform
            except Exception as error:
                raise AnymodalError(f"{wrong}: it takes no waveform ({one_line(error)})") from error
            if widths != self._model.outputs:
                raise AnymodalError(
                    f"{wrong}: it gives rows of {widths} values, not of {self._model.outputs}"
                )
            expected = np.stack([self._single(tf.constant(w)).numpy() for w in waveforms])
            if not np.isfinite(expected).all():
                raise AnymodalError(f"{wrong}: its embeddings are not finite")
            if self._model.side_by_side:
                function = self._graph(tf.vectorized_map)
                # an operation that TensorFlow cannot vectorise is no reason to stop
                try:
                    if _same(function(tf.constant(waveforms)).numpy(), expected):
                        return function
                except Exception:
                    pass
        return self._graph(tf.map_fn)

    def _graph(self, mapping: Callable[..., Any]) -> Callable[[Any], Any]:
        tf = self._tf
        single = tf.autograph.experimental.do_not_convert(self._single)
        shape = tf.TensorSpec([None, PATCH_SAMPLES], tf.float32)
        return tf.function(
            lambda waveforms: mapping(single, waveforms), input_signature=[shape], autograph=False
        )


def load(info: EncoderInfo, device: str, path: Path | None) -> TfHubEncoder:
    """Build an encoder of this family (see `anymodal.encoders.get`); `path`: a SavedModel."""
    import_tensorflow(info.name)  # before anything is downloaded
    return TfHubEncoder(info, device, locate(info.name, info.files[0], path))


def _rebuilt(info: EncoderInfo, device: str, folder: Path, version: str) -> TfHubEncoder:
    encoder = load(info, device, folder if folder.exists() else None)
    if encoder.version != version:
        raise AnymodalError(
            f"{info.name} is version {encoder.version} here, and {version} where it comes from: "
            "put the same weights on both machines"
        )
    return encoder


def _loaded(tf: Any, hub: Any, place: Place, encoder: str, folder: Path) -> Any:
    # without the second, hub.load would leave the variables as they were initialised
    for part in ("saved_model.pb", "variables/variables.index"):
        if not (folder / part).is_file():
            raise AnymodalError(f"{folder} is not the SavedModel of {encoder}: it lacks {part}")
    try:
        with tf.device(place.scope):
            return hub.load(str(folder))
    # parsers, the restoring of variables and old Keras objects raise whatever they like
    except Exception as error:
        raise AnymodalError(
            f"{folder} is not a whole SavedModel of {encoder} ({one_line(error)}): delete it, and "
            "download it again"
        ) from error


def _variables(tf: Any, folder: Path) -> Tensors:
    """The SavedModel's float variables by their name in its checkpoint; checksums are verified."""
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        types = reader.get_variable_to_dtype_map()
        tensors = {
            name: reader.get_tensor(name) for name, kind in types.items() if kind.is_floating
        }
    except Exception as error:
        raise AnymodalError(
            f"{folder} cannot be read ({one_line(error)}): delete it, and download it again"
        ) from error
    if not tensors:
        raise AnymodalError(f"{folder} holds no variables")
    return tensors


def _same(got: np.ndarray, expected: np.ndarray) -> bool:
    scale = np.abs(expected).max(axis=1, keepdims=True)
    return got.shape == expected.shape and bool((np.abs(got - expected) <= _SAME * scale).all())
