"""Clips per second of the OpenL3 port, against the publisher's package openl3 (TensorFlow).

    pip install openl3
    python benchmarks/openl3_package.py [--threads 1] [--clips 16] [--rounds 3] [--clock wall|cpu]
        [image]

Ways, which take turns in one run on the CPU, the best round of each:

anymodal          `embed` of all clips, and of one clip at a time
openl3 batch      `get_audio_embedding` (center=False, hop_size=1.0: one frame a second, the same
                  numbers as ours) and `get_image_embedding` of the list of all clips
openl3 one clip   the same, called for one clip after the other with the model built once
openl3 default    sound alone, as the paper's code calls it: six frames for a clip of one second

`--clock cpu` counts the processor time of all threads instead of time on the wall: for a machine
that has other work to do at the same time.

Both run the same weights: the package's own where they are installed, else untrained ones. The
largest difference between their embeddings is printed beside the speeds.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from anymodal.encoders import registry

RATE = 48_000
Embed = Callable[[Sequence[np.ndarray]], np.ndarray]


def package() -> Any:
    """The module openl3, or the end of the program with one line."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    try:
        import openl3
    except Exception as error:
        reason = " ".join(str(error).split())
        sys.exit(f"nothing to compare with: openl3 cannot be imported ({reason}); pip install it")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return openl3


def weights_file(openl3: Any, modality: str, folder: Path) -> Path:
    """The package's .h5, or one with the initial weights of its network."""
    installed = Path(openl3.__file__).with_name(f"openl3_{modality}_mel256_music.h5")
    if installed.is_file():
        return installed
    models = openl3.models
    build = models._construct_mel256_audio_network, models._construct_image_network
    layers = [layer for layer in build[modality == "image"]().layers if layer.weights]
    path = folder / installed.name
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            names = [f"{layer.name}/{w.name.rpartition('/')[2]}".encode() for w in layer.weights]
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = names
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name.decode()] = value
    return path


def ways(openl3: Any, modality: str, folder: Path) -> dict[str, Embed]:
    """The ways to embed clips of a modality."""
    path = weights_file(openl3, modality, folder)
    ours = registry.get(f"openl3_{modality}", "cpu", path)
    models = openl3.models

    def one_by_one(embed: Embed) -> Embed:
        return lambda clips: np.concatenate([embed([clip]) for clip in clips])

    if modality == "image":
        model = models.load_image_embedding_model_from_path(str(path), 8192)

        def pictures(clips: Sequence[np.ndarray]) -> np.ndarray:
            found = openl3.get_image_embedding(list(clips), model=model, verbose=False)
            return np.concatenate(found)

        theirs: Embed = pictures
        more: dict[str, Embed] = {}
    else:
        model = models.load_audio_embedding_model_from_path(str(path), "mel256", 6144)

        def framed(clips: Sequence[np.ndarray], **framing: Any) -> np.ndarray:
            found, _ = openl3.get_audio_embedding(
                list(clips), RATE, model=model, verbose=False, **framing
            )
            return np.stack([frames[0] for frames in found])

        theirs = partial(framed, center=False, hop_size=1.0)
        more = {"openl3 default": framed}
    return {
        "anymodal": ours.embed,
        "anymodal one clip": one_by_one(ours.embed),
        "openl3 batch": theirs,
        "openl3 one clip": one_by_one(theirs),
        **more,
    }


def clips_of(modality: str, count: int) -> list[np.ndarray]:
    """Noise of the size of real clips: 1 s of sound, or a 480 × 360 picture."""
    rng = np.random.default_rng(0)
    if modality == "audio":
        return [0.1 * rng.standard_normal(RATE, np.float32) for _ in range(count)]
    return [rng.integers(0, 256, (360, 480, 3), dtype=np.uint8) for _ in range(count)]


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def measure(openl3: Any, modality: str, count: int, rounds: int, clock: str) -> None:
    """Print speeds and ratios of one modality."""
    clips = clips_of(modality, count)
    with tempfile.TemporaryDirectory() as folder:
        found = ways(openl3, modality, Path(folder))
    first = {way: embed(clips[:2]) for way, embed in found.items()}  # builds graphs, allocates
    scale = np.abs(first["openl3 batch"]).max()
    error = np.abs(first["anymodal"] - first["openl3 batch"]).max() / scale
    best = dict.fromkeys(found, float("inf"))
    now = CLOCKS[clock]
    for _ in range(rounds):
        for way, embed in found.items():
            # six times the work of the others
            used = clips[: max(1, count // 6)] if way == "openl3 default" else clips
            start = now()
            embed(used)
            best[way] = min(best[way], (now() - start) / len(used))
    speeds = ", ".join(f"{way} {1 / seconds:.2f}/s" for way, seconds in best.items())
    print(f"{modality}: {speeds}; largest relative difference {error:.1e}")
    for way, seconds in best.items():
        if way.startswith("openl3"):
            print(f"    anymodal / {way}: {seconds / best['anymodal']:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("modalities", nargs="*", default=["audio", "image"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    openl3 = package()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    torch.set_num_threads(arguments.threads)
    print(
        f"PyTorch {torch.__version__}, TensorFlow {tf.__version__}, openl3 {openl3.__version__}, "
        f"{arguments.threads} thread(s), {arguments.clock} time"
    )
    for modality in arguments.modalities:
        measure(openl3, modality, arguments.clips, arguments.rounds, arguments.clock)


if __name__ == "__main__":
    main()
