"""An exported classifier in onnxruntime against the same in PyTorch and scikit-learn.

    python benchmarks/onnx_export.py CLASSIFIER [--media FOLDER] [--files N] [--threads N]

Speed     rows per second, from what the encoder's `prepare` returns to probabilities, taking turns
          in one run, the best round of each: windows of one second, and images.
Files     over up to N audio files and N images of FOLDER: how far joint vectors are apart, in how
          many rows a vote moved, the largest difference of a probability, and other answers.
Ties      a forest of 100 trees on random rows, some with two best classes: how many rows
          another converter answers differently, because it sums hundredths (skl2onnx, if
          installed; two threads).

CLASSIFIER is a folder that `anymodal run` made, such as artifacts/classifier.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto
from sklearn.ensemble import RandomForestClassifier

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.core.errors import MediaError
from anymodal.core.modality import MODALITIES, Modality
from anymodal.export import OnnxClassifier, export
from anymodal.export.forest import tree_ensemble
from anymodal.export.head import Graph, tensor
from anymodal.export.parity import random_items
from anymodal.media import decoding
from anymodal.media.segmentation import segment

ROUNDS = 5
ROWS = 16


def best_of(candidates: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each; the best round is the one least disturbed by the machine."""
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(ROUNDS):
        for name, work in candidates.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def speed(classifier: ModalityAgnosticClassifier, exported: OnnxClassifier) -> None:
    """Rows per second of both."""
    for modality in MODALITIES:
        encoder = classifier.networks[modality]
        items = random_items(encoder, ROWS, np.random.default_rng(0))
        ready = [encoder.prepare(item) for item in items]  # type: ignore[attr-defined]

        def in_pytorch(batch: list[np.ndarray]) -> np.ndarray:
            embeddings = encoder.embed_prepared(batch)  # type: ignore[attr-defined]  # noqa: B023
            votes = classifier.votes(classifier.projection.project(modality, embeddings))  # noqa: B023
            return classifier.calibrator.calibrated(modality, votes)  # noqa: B023

        for rows in (1, ROWS):
            batch, stacked = ready[:rows], np.concatenate(ready[:rows])
            seconds = best_of(
                {
                    "onnxruntime": lambda m=modality, x=stacked: exported.run(m, x),
                    "PyTorch": lambda x=batch, work=in_pytorch: work(x),
                }
            )
            rates = "   ".join(f"{name} {rows / s:.1f}/s" for name, s in seconds.items())
            ratio = seconds["PyTorch"] / seconds["onnxruntime"]
            print(f"{encoder.name}, {rows} at a time: {rates}   ratio {ratio:.2f}")


def over_files(
    classifier: ModalityAgnosticClassifier, exported: OnnxClassifier, folder: Path, most: int
) -> None:
    """Differences over real files."""
    files: dict[Modality, list[Path]] = {"audio": [], "image": []}
    for path in sorted(folder.rglob("*.*")):
        try:
            kind = decoding.sniff(path)
        except MediaError:
            continue
        if kind in files:
            files[kind].append(path)
    for modality, paths in files.items():
        chosen = random.Random(0).sample(paths, min(most, len(paths)))
        joint, moved, probability, other = [], 0, 0.0, 0
        for path in chosen:
            item = segment(path, classifier.sample_rate)
            parts = [part for w in item.windows if (part := w.of(modality)) is not None]
            embeddings = classifier.networks[modality].embed(parts)
            expected = classifier.projection.project(modality, embeddings)
            got = exported.run(
                modality, np.concatenate([exported.prepare(modality, part) for part in parts])
            )
            joint += np.abs(got.joint - expected).max(axis=1).tolist()
            votes = classifier.votes(expected)
            moved += int((np.abs(got.votes - votes).max(axis=1) > 1e-6).sum())
            (ours,), (theirs,) = (c.predict_windows([item]) for c in (classifier, exported))
            difference = np.abs(ours.probabilities - theirs.probabilities).max()
            probability = max(probability, float(difference))
            other += ours.answer != theirs.answer
        if joint:
            print(
                f"{modality}: {len(chosen)} files, {len(joint)} rows; joint vectors apart by "
                f"{max(joint):.1e} at most, {np.median(joint):.1e} in the median; a vote moved in "
                f"{moved} rows; largest difference of a probability {probability:.1e}; "
                f"{other} other answers"
            )


def ties(rows: int = 5000, dim: int = 16, classes: int = 10) -> None:
    """Rows that a converted forest answers differently."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, dim)).astype(np.float32)
    forest = RandomForestClassifier(100, random_state=0).fit(
        features, rng.integers(0, classes, 200)
    )
    queries = rng.normal(size=(rows, dim)).astype(np.float32)
    expected = forest.predict_proba(queries)
    tied = int(((expected == expected.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
    graph = Graph()
    graph.nodes.append(tree_ensemble(forest, "x", "y"))
    x, y = tensor("x", TensorProto.FLOAT, dim), tensor("y", TensorProto.FLOAT, classes)
    models = {"ours": (graph.model("ties", [x], [y]), 0)}
    try:
        from skl2onnx import to_onnx
    except ModuleNotFoundError:
        print("skl2onnx is not installed: ties are counted for ours alone")
    else:
        models["skl2onnx"] = (to_onnx(forest, queries[:1], options={"zipmap": False}), 1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    for name, (model, output) in models.items():
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        got = session.run(None, {session.get_inputs()[0].name: queries})[output]
        other = int((got.argmax(axis=1) != expected.argmax(axis=1)).sum())
        print(f"{name}: {other} of {rows} rows answered differently ({tied} have two best)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("classifier", type=Path)
    parser.add_argument("--media", type=Path)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    classifier = ModalityAgnosticClassifier.load(chosen.classifier, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        export(classifier, Path(folder) / "export")
        exported = OnnxClassifier.load(Path(folder) / "export", threads=chosen.threads)
        speed(classifier, exported)
        if chosen.media is not None:
            over_files(classifier, exported, chosen.media, chosen.files)
    ties()


if __name__ == "__main__":
    main()
