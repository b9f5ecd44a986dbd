"""Clips per second of extraction, in two comparisons.

    python benchmarks/extraction.py [--threads N] [--media FOLDER] [--clips N] [--ray] [encoder ...]

Arrays   one batch against one clip at a time, and against building the network for every file, as
         a script that starts from `load` for each would.
Files    `extract`, from media files to the cache, against the loop of the paper's published code:
         all files read whole into memory (librosa, Pillow) by one thread, then one clip at a time
         through the network. Beyond the first second librosa's sound is cut off before the network,
         so that both embed the same. --ray adds Ray on this machine (its start is not counted, that
         of its processes is).

Same network and threads, taking turns in one run, the best round of each. FOLDER has folders
`audio` and `images`; without one files are made: 3 s of stereo at 44.1 kHz, pictures of 640 × 480.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile
import torch
from PIL import Image

from anymodal.embeddings import Engine, LocalEngine, extract, open_engine
from anymodal.encoders import registry
from anymodal.encoders.base import Encoder

ARRAYS = {"batched": 32, "one by one": 32, "rebuilt": 2}
ROUNDS = 5
WORKERS = 2


def best_of(ways: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds of each way; the best round is the one least disturbed by the machine."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for way, work in ways.items():
            start = time.perf_counter()
            work()
            best[way] = min(best[way], time.perf_counter() - start)
    return best


def tell(what: str, speed: dict[str, float]) -> None:
    """Clips per second, and the first way's ratio to each other."""
    first, *others = speed
    print(what, *(f"{way} {clips:.1f}/s" for way, clips in speed.items()), sep="   ")
    for way in others:
        print(f"    {first} / {way}: {speed[first] / speed[way]:.2f}", flush=True)


def items(encoder: Encoder, number: int) -> list[np.ndarray]:
    """Noise of the size of real clips: 1 s of sound, or a 320 × 240 picture."""
    rng = np.random.default_rng(0)
    if encoder.sample_rate is not None:
        return [0.1 * rng.standard_normal(encoder.sample_rate, np.float32) for _ in range(number)]
    return [rng.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(number)]


def from_arrays(encoder: Encoder, device: str) -> dict[str, float]:
    """Clips per second of each way to call an encoder."""
    batch = items(encoder, max(ARRAYS.values()))
    encoder.embed(batch[:2])  # the first pass allocates

    def one_by_one(clips: list[np.ndarray]) -> None:
        for clip in clips:
            encoder.embed([clip])

    def rebuilt(clips: list[np.ndarray]) -> None:
        for clip in clips:
            registry.get(encoder.name, device).embed([clip])

    ways = {"batched": encoder.embed, "one by one": one_by_one, "rebuilt": rebuilt}
    seconds = best_of({way: partial(work, batch[: ARRAYS[way]]) for way, work in ways.items()})
    return {way: ARRAYS[way] / taken for way, taken in seconds.items()}


def paper_loop(encoder: Encoder, files: list[Path], out: Path) -> None:
    """The published code's way: everything in memory, one thread, one clip at a time."""
    if encoder.sample_rate is not None:
        rate = encoder.sample_rate
        everything = [librosa.load(file, sr=rate)[0][:rate] for file in files]
    else:
        everything = [np.array(Image.open(file).convert("RGB")) for file in files]
    np.save(out, np.concatenate([encoder.embed([item]) for item in everything]))


def from_files(
    encoder: Encoder, media: Path, number: int, engines: dict[str, Engine]
) -> dict[str, float]:
    """Clips per second of `extract` by each engine, and of the paper's loop."""
    folder = media / ("audio" if encoder.modality == "audio" else "images")
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    files = found[:: max(1, len(found) // number)][:number]
    table = pd.DataFrame(
        {
            "clip_id": [str(i) for i in range(len(files))],
            encoder.modality: [str(file.relative_to(media)) for file in files],
            "start_s": 0.0,
        }
    )
    with tempfile.TemporaryDirectory() as name:
        fresh = (Path(name) / str(i) for i in count())

        def extracted(engine: Engine) -> None:
            report = extract(table, media, encoder, next(fresh), engine=engine)
            assert report.embedded == len(files), report.failures

        ways: dict[str, Callable[[], object]]
        ways = {way: partial(extracted, engine) for way, engine in engines.items()}
        ways["paper's loop"] = partial(paper_loop, encoder, files, Path(name) / "loop.npy")
        ways["paper's loop"]()  # the files come into the system's cache, librosa loads its parts
        seconds = best_of(ways, 3)
    return {way: len(files) / taken for way, taken in seconds.items()}


def make_media(folder: Path, number: int) -> None:
    """Files that cost about what real ones do: noise with the spectrum of music and photographs."""
    rng = np.random.default_rng(0)
    for kind in ("audio", "images"):
        (folder / kind).mkdir()
    for i in range(number):
        sound = np.cumsum(rng.standard_normal((3 * 44_100, 2)), axis=0)
        sound = 0.5 * (sound - sound.mean(axis=0)) / np.abs(sound).max()
        soundfile.write(folder / "audio" / f"{i}.wav", sound, 44_100)
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        coarse.resize((640, 480)).save(folder / "images" / f"{i}.jpg", quality=90)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("encoders", nargs="*", default=["musicnn_mtt", "efficientnet_lite0"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--media", type=Path, help="folder with folders audio and images")
    parser.add_argument("--clips", type=int, default=256, help="files to embed (default 256)")
    parser.add_argument("--ray", action="store_true", help="Ray on this machine as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"PyTorch {torch.__version__}, {arguments.threads} thread(s) a network, device "
        f"{arguments.device}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    )
    with ExitStack() as stack:
        media = arguments.media
        if media is None:
            media = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            make_media(media, arguments.clips)
        engines: dict[str, Engine] = {"extract": LocalEngine(WORKERS)}
        if arguments.ray:
            engines["extract on Ray"] = stack.enter_context(open_engine("ray", WORKERS))
        for name in arguments.encoders:
            encoder = registry.get(name, arguments.device)
            tell(f"{name}, arrays", from_arrays(encoder, arguments.device))
            tell(f"{name}, files", from_files(encoder, media, arguments.clips, engines))
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
