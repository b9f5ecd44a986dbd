"""Claim: novelty tells noise and speech from what a classifier knows, where the probability of its
answer does not; of other instruments both find a third at most.

    python benchmarks/unknown.py FOLDER [--params params.yaml] [--files 40]

Run it in a project after `anymodal classify`; FOLDER has a folder of recordings a class, of which
those that the classifier knows are left out. Both ways are scored on one second each and compared
at the same cost: the threshold that keeps 95 % of the validation and test sounds of the
classification subset. `novelty` is a residual outside the training rows' subspace,
`probability` one minus the forest's share of votes for its answer (Hendrycks & Gimpel 2017). AUROC
is that of telling the row's sounds from those. Sounds that are blank, which are unknown by either
way, are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from anymodal import negatives
from anymodal.encoders.base import Encoder
from anymodal.errors import MediaError
from anymodal.items import Limits, is_blank, take_apart
from anymodal.model import ModalityAgnosticClassifier
from anymodal.stages.base import drawn_clips
from anymodal.stages.features import classification_rows
from anymodal.workspace import Workspace

KEEP = 0.95


def recordings(folder: Path, files: int, rate: int) -> list[np.ndarray]:
    """The first second that is not blank of each of a folder's files."""
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_file())[:files]:
        try:
            moments = take_apart(path, rate, Limits(moments=10)).moments
        except MediaError as error:
            print(f"skipped: {error}")
            continue
        sounds = [one.audio for one in moments if one.audio is not None]
        found += [sound for sound in sounds if not is_blank(sound)][:1]
    return found


def computed(network: Encoder) -> dict[str, list[np.ndarray]]:
    """What the stage `classify` measures the judge with."""
    assert network.sample_rate is not None
    chance = np.random.default_rng(0)
    made = {
        kind: [make(chance) for _ in range(50)]
        for kind, (modality, make) in negatives.kinds(network.sample_rate).items()
        if modality == "audio"
    }
    return {kind: [one for one in some if not is_blank(one)] for kind, some in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--files", type=int, default=40, help="of a class, at most")
    args = parser.parse_args()
    workspace = Workspace(args.params.parent)
    classifier = ModalityAgnosticClassifier.load(workspace.classifier)
    network = classifier.networks["audio"]

    def scores(embeddings: np.ndarray) -> dict[str, np.ndarray]:
        votes = classifier.predict_embeddings("audio", embeddings)
        novelty = classifier.judge.novelties("audio", embeddings)
        return {"novelty": novelty, "probability": 1 - votes.max(axis=1)}

    names = (classifier.networks[modality].name for modality in ("audio", "image"))
    rows = classification_rows(workspace, drawn_clips(workspace), *names)
    known = scores(np.concatenate([rows[split]["audio"].matrix for split in ("valid", "test")]))
    thresholds = {way: np.quantile(one, KEEP, method="higher") for way, one in known.items()}

    others = {
        folder.name: recordings(folder, args.files, classifier.sample_rate)
        for folder in sorted(path for path in args.folder.iterdir() if path.is_dir())
        if folder.name not in classifier.classes
    }
    told: dict[str, list[np.ndarray]] = {way: [] for way in known}
    count = len(known["novelty"])
    print(
        f"thresholds keep {KEEP:.0%} of {count} sounds that it knows; found of others, and AUROC:"
    )
    for name, sounds in (others | computed(network)).items():
        if not sounds:
            continue
        found = scores(network.embed(sounds))
        line(name, len(sounds), found, known, thresholds)
        if name in others:
            for way, values in found.items():
                told[way].append(values)
    if told["novelty"]:
        together = {way: np.concatenate(values) for way, values in told.items()}
        line("all recordings", len(together["novelty"]), together, known, thresholds)


def line(
    name: str,
    count: int,
    found: dict[str, np.ndarray],
    known: dict[str, np.ndarray],
    thresholds: dict[str, float],
) -> None:
    """Print what each way finds of `count` sounds."""
    cells = []
    for way, values in found.items():
        truth = np.repeat([0, 1], [len(known[way]), count])
        area = roc_auc_score(truth, np.concatenate([known[way], values]))
        cells.append(f"{way} {np.mean(values > thresholds[way]):4.0%}  {area:.3f}")
    print(f"{name:15} {count:4}   " + "   ".join(cells))


if __name__ == "__main__":
    main()
