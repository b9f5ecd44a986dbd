"""Claim: novelty separates noise and speech from what a classifier knows, where the probability of
its answer does not; of other instruments both find a third at most.

    python benchmarks/unknown.py FOLDER [--params params.yaml] [--files 40]

Run it in a project after `anymodal classify`. FOLDER has one folder of recordings per class; known
classes are skipped. Both measures score one second each and are compared at the same cost: the
threshold that keeps 95 % of the validation and test audio of the classification subset. `novelty`
is a residual outside the training rows' subspace, `probability` one minus the forest's share of
votes for its answer (Hendrycks & Gimpel 2017); AUROC is that of separating the row's audio from the
kept rows. Blank audio, which is unknown by either measure, is skipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from anymodal.classifier import synthetic_ood
from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.config.params import load_params
from anymodal.core.errors import MediaError
from anymodal.core.workspace import Workspace
from anymodal.media.segmentation import Limits, is_blank, segment
from anymodal.pipeline.context import Context
from anymodal.pipeline.features import classification_rows

KEEP = 0.95


def recordings(folder: Path, files: int, rate: int) -> list[np.ndarray]:
    """The first second that is not blank of each of a folder's files."""
    seconds = []
    for path in sorted(path for path in folder.iterdir() if path.is_file())[:files]:
        try:
            windows = segment(path, rate, Limits(windows=10)).windows
        except MediaError as error:
            print(f"skipped: {error}")
            continue
        audio = [window.audio for window in windows if window.audio is not None]
        seconds += [samples for samples in audio if not is_blank(samples)][:1]
    return seconds


def synthetic(rate: int) -> dict[str, list[np.ndarray]]:
    """The audio that the stage `classify` measures `unknown` with."""
    rng = np.random.default_rng(0)
    made = {
        kind: [make(rng) for _ in range(50)]
        for kind, (modality, make) in synthetic_ood.kinds(rate).items()
        if modality == "audio"
    }
    return {kind: [samples for samples in of if not is_blank(samples)] for kind, of in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--files", type=int, default=40, help="per class, at most")
    args = parser.parse_args()
    workspace = Workspace(args.params.parent)
    classifier = ModalityAgnosticClassifier.load(workspace.classifier)
    rate = classifier.sample_rate

    def scores(embeddings: np.ndarray) -> dict[str, np.ndarray]:
        votes = classifier.votes(classifier.projection.project("audio", embeddings))
        novelty = classifier.calibrator.novelties("audio", embeddings)
        return {"novelty": novelty, "probability": 1 - votes.max(axis=1)}

    pair = classifier.networks["audio"].name, classifier.networks["image"].name
    rows = classification_rows(Context(workspace, load_params(args.params)), pair)
    known = scores(np.concatenate([rows[split]["audio"].matrix for split in ("valid", "test")]))
    thresholds = {name: np.quantile(of, KEEP, method="higher") for name, of in known.items()}

    def report(name: str, measured: dict[str, np.ndarray]) -> None:
        cells = []
        for measure, values in measured.items():
            truth = np.repeat([0, 1], [len(known[measure]), len(values)])
            area = roc_auc_score(truth, np.concatenate([known[measure], values]))
            cells.append(f"{measure} {np.mean(values > thresholds[measure]):4.0%}  {area:.3f}")
        print(f"{name:15} {len(values):4}   " + "   ".join(cells))

    others = {
        folder.name: recordings(folder, args.files, rate)
        for folder in sorted(path for path in args.folder.iterdir() if path.is_dir())
        if folder.name not in classifier.classes
    }
    count = len(known["novelty"])
    print(f"thresholds keep {KEEP:.0%} of {count} known audio rows; found of others, and AUROC:")
    of_others = []
    for name, seconds in (others | synthetic(rate)).items():
        if seconds:
            measured = scores(classifier.networks["audio"].embed(seconds))
            report(name, measured)
            if name in others:
                of_others.append(measured)
    if of_others:
        report("all recordings", {m: np.concatenate([of[m] for of in of_others]) for m in known})


if __name__ == "__main__":
    main()
