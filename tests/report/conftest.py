"""Artifacts as the stages write them, made from a seeded model of how often a system errs."""

import shutil
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from anymodal.calibration import expected_calibration_error, reliability, tempered
from anymodal.classification import SINGLE, Outcome, macro_f1, summarise
from anymodal.encoders.base import MODALITIES
from anymodal.params import Params
from anymodal.per_class import label_correlations
from anymodal.report import build_report
from anymodal.resampling import Resampling
from anymodal.significance import comparisons, intervals, zero_shot_shares
from anymodal.storage import write_json, write_parquet
from anymodal.structure import structure
from anymodal.workspace import Workspace, pair_name

CLASSES = (
    "accordion", "banjo", "clarinet", "drums", "flute", "guitar", "piano", "saxophone",
    "trombone", "trumpet", "violin",
)  # fmt: skip
AUDIO = ("musicnn_mtt", "musicnn_msd")
IMAGE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SKILL = {
    ("MMT", "zero-shot", "audio"): 0.86,
    ("MMT", "zero-shot", "image"): 0.95,
    ("MMP", "zero-shot", "audio"): 0.02,
    ("MMP", "zero-shot", "image"): 0.03,
    ("SMA", "all", "audio"): 0.77,
    ("SMI", "all", "image"): 0.95,
    ("MMT", "all", "audio"): 0.88,
    ("MMT", "all", "image"): 0.96,
    ("MMP", "all", "audio"): 0.75,
    ("MMP", "all", "image"): 0.94,
}


def write_artifacts(
    root,
    *,
    seeds=5,
    skill=None,
    audio=AUDIO,
    image=IMAGE,
    classes=CLASSES,
    pairing="class",
    name="instruments",
    per_class=15,
    jitter=0.015,
    checks=True,
):
    """Write the artifacts of one run under `root`; return its workspace."""
    workspace = Workspace(root)
    random = np.random.default_rng(0)
    pairs = [pair_name(a, i) for a in audio for i in image]
    write_json(workspace.dataset, dataset(name, pairing, classes))
    ranking = []
    for place, pair in enumerate(pairs):
        score = retrieval(pair, name, pairing, seeds, 0.93 - 0.02 * place, random)
        write_json(workspace.retrieval(pair), score)
        ways = {
            way: float(np.mean([entry[way] for entry in score["translation"]]))
            for way in ("audio_to_image", "image_to_audio")
        }
        ranking.append({"pair": pair, **ways, "mean": sum(ways.values()) / 2, "std": 0.006})
    ranking.sort(key=lambda entry: -entry["mean"])
    chosen = ranking[0]["pair"]
    write_json(
        workspace.selection,
        {"pair": chosen, "audio": chosen.split("+")[0], "image": chosen.split("+")[1],
         "rule": "highest mean", "ranking": ranking},
    )  # fmt: skip
    write_json(workspace.training(chosen), training(chosen, pairing, seeds, random))
    found = outcomes(classes, seeds, {**SKILL, **(skill or {})}, per_class, jitter, random)
    summary = summarise(found)
    predictions = pd.concat(
        [
            o.predictions.assign(system=o.system, regime=o.regime, target=o.target, seed=o.seed)
            for o in found
        ],
        ignore_index=True,
    )
    recordings = {clip: clip for clip in predictions["clip_id"].unique()}
    how = Resampling(replicates=200)
    plain = ("system", "regime", "target", "seed", "macro_f1", "train_rows", "train_rows_of_target")
    write_json(
        workspace.classification / "results.json",
        {
            "dataset": name, "pairing": pairing, "pair": chosen, "classes": list(classes),
            "trees": 100, "max_depth": 32, "summary": summary.to_dict("records"),
            "outcomes": [{field: getattr(o, field) for field in plain} for o in found],
            "intervals": intervals(predictions, classes, recordings, how),
            "comparisons": comparisons(predictions, classes, recordings, how),
            "zero_shot_share": zero_shot_shares(predictions, classes, recordings, how),
        },
    )  # fmt: skip
    shared = {"dataset": name, "pairing": pairing, "pair": chosen, "classes": list(classes)}
    write_json(workspace.judge, shared | judged(classes))
    write_json(
        workspace.mixing / "curve.json",
        shared | {"train_rows": dict.fromkeys(MODALITIES, 18 * len(classes)), "points": []},
    )
    write_parquet(workspace.mixing / "curve.parquet", curve(18 * len(classes), random))
    write_json(workspace.structure / "structure.json", shared | spaces(classes, seeds, random))
    write_json(workspace.across / "across.json", shared | across(classes))
    write_parquet(workspace.classification / "predictions.parquet", predictions)
    if checks:
        results = [
            {"name": "columns as in the contract", "success": True, "severity": "error"},
            {"name": "classes balanced in train", "success": True, "severity": "error"},
        ]
        write_json(workspace.checks / "checks.json", {"results": results})
    return workspace


def curve(every, random):
    """A curve on which MMT gains little and MMP much."""
    return pd.DataFrame(
        [
            (system, target, samples, draw, float(np.clip(start + gain * samples / every
             + 0.02 * random.standard_normal(), 0, 1)))
            for system, start, gain in (("MMT", 0.85, 0.03), ("MMP", 0.05, 0.75))
            for target in MODALITIES
            for samples in (0, 20, 40, 80, every)
            for draw in range(6)
        ],
        columns=["system", "target", "samples", "draw", "macro_f1"],
    )  # fmt: skip


def spaces(classes, seeds, random):
    """Centres that modalities share after translation, and do not after PCA."""
    names = [str(name) for name in classes]
    truth = np.repeat(names, 4)

    def one(apart):
        centres = random.standard_normal((len(names), 8))
        rows = {
            modality: np.repeat(centres, 4, axis=0)
            + apart * place + 0.2 * random.standard_normal((len(truth), 8))
            for place, modality in enumerate(MODALITIES)
        }  # fmt: skip
        return structure(rows, dict.fromkeys(MODALITIES, truth), names).to_json()

    counts = {m: random.integers(10, 200, len(names)) for m in MODALITIES}
    found = [
        {"target": target, "regime": "all", "counts_of": modality, **asdict(correlation)}
        for target in MODALITIES
        for modality, methods in label_correlations(counts, random.random(len(names)), 500).items()
        for correlation in methods.values()
    ]
    return {
        "test_rows": dict.fromkeys(MODALITIES, len(truth)),
        "pca": one(6.0),
        "translated": [{"seed": seed, **one(0.0)} for seed in range(seeds)],
        "label_counts": {m: c.tolist() for m, c in counts.items()},
        "correlations": found,
    }


LEVELS = {
    ("MMT", "zero-shot"): (0.86, 0.64, 0.30),
    ("MMT", "all"): (0.84, 0.66, 0.31),
    ("SMA", "all"): (0.54, 0.27, 0.12),
    ("MMP", "all"): (0.43, 0.26, 0.09),
    ("MMP", "zero-shot"): (0.12, 0.08, 0.05),
}
"""Macro F1 within sources, within sources on as few rows, and across sources."""
PROTOCOLS = ("within", "matched", "across")


def across(classes, levels=LEVELS, p_holm=0.002, by_source=(("hall", 0.7), ("room", 0.2))):
    """Sounds of two large sources and a small one that all systems fall across; pictures of one
    source, which cannot be tested so."""

    def scored(protocols):
        return [
            {"protocol": protocol, "system": system, "regime": regime, "mean": level, "std": 0.01,
             "low": level - 0.06, "high": level + 0.06, "seeds": 2}
            for (system, regime), numbers in levels.items()
            for protocol, level in zip(PROTOCOLS, numbers, strict=True) if protocol in protocols
        ]  # fmt: skip

    sounds = {
        "missing": {}, "test_rows": 150, "groups": 140, "sources": 1 + len(by_source),
        "classes": list(classes[:-1]), "chance": 1 / (len(classes) - 1),
        "left_out": [{"instrument": classes[-1], "rows": 15,
                      "reason": "all its sounds are of one source (den)"}],
        "scores": scored(PROTOCOLS),
        "by_source": [
            {"source": source, "rows": rows, "classes": 5, "accuracy": [
                {"protocol": protocol, "system": system, "regime": regime, "value": value}
                for protocol, value in (("within", 0.9), ("across", share))
                for system, regime in levels
            ]}
            for source, share, rows in [*((*one, 72) for one in by_source), ("attic", 1.0, 6)]
        ],
        "differences": [
            {"system": system, "regime": regime, "first": first, "second": second,
             "difference": lost, "low": lost - 0.07, "high": lost + 0.07, "p_value": p_holm / 10,
             "p_holm": p_holm}
            for (system, regime), numbers in levels.items()
            for first, second in (("within", "across"), ("within", "matched"),
                                  ("matched", "across"))
            for lost in [numbers[PROTOCOLS.index(first)] - numbers[PROTOCOLS.index(second)]]
        ],
    }  # fmt: skip
    told = "all pictures are of one source (web)"
    pictures = {
        "missing": {"matched": told, "across": told}, "test_rows": 300, "groups": 290, "sources": 1,
        "classes": list(classes), "chance": 1 / len(classes), "scores": scored(("within",)),
    }  # fmt: skip
    return {"seeds": 2, "targets": {"audio": sounds, "image": pictures}}


def judged(classes, rows=140):
    """Votes that are less sure than they should be, and right once they are calibrated."""
    random = np.random.default_rng(7)
    votes = random.dirichlet(np.full(len(classes), 0.4), rows)
    calibrated = tempered(votes, 0.5, 0.005)
    truth = np.array([random.choice(len(classes), p=p) for p in calibrated])
    right = calibrated.argmax(axis=1) == truth
    modality = {
        "test_rows": rows, "temperature": 0.5, "threshold": 12.0, "known": 0.94,
        "ece": expected_calibration_error(calibrated, truth),
        "ece_of_votes": expected_calibration_error(votes, truth),
        "nll": 0.5, "nll_of_votes": 0.6,
        "reliability": [point._asdict() for point in reliability(calibrated, truth)],
        "reliability_of_votes": [point._asdict() for point in reliability(votes, truth)],
        "accuracy": float(right.mean()), "accuracy_of_known": float(right.mean()),
    }  # fmt: skip
    return {
        "keep": 0.95, "modalities": dict.fromkeys(MODALITIES, modality),
        "fusion": {
            "pairing": "class", "weights": {"audio": 1.0, "image": 1.1}, "pairs": 980,
            "audio": 0.8, "image": 0.95, "both": 0.97, "better": "image", "difference": 0.02,
            "interval": [-0.01, 0.05],
        },
        "unknown": {
            "noise": {"modality": "audio", "items": 50, "unknown": 0.9},
            "texture": {"modality": "image", "items": 50, "unknown": 0.98},
        },
    }  # fmt: skip


def dataset(name, pairing, classes):
    account = []
    modalities = MODALITIES if pairing == "class" else ("both",)
    for place, instrument in enumerate(classes):
        for modality in modalities:
            parts = {
                ("translation", "train"): 80 + 9 * place,
                ("translation", "valid"): 14 + place,
                ("retrieval", "test"): 30 + 2 * place,
                ("classification", "train"): 18,
                ("classification", "valid"): 6,
                ("classification", "test"): 15,
                ("unused", None): 4,
            }
            account += [
                {"instrument": instrument, "modality": modality, "subset": subset, "split": split,
                 "wanted": taken, "available": taken, "taken": taken, "note": ""}
                for (subset, split), taken in parts.items()
            ]  # fmt: skip
    rows = sum(entry["taken"] for entry in account) // len(modalities)
    return {
        "name": name, "source": "pack", "pairing": pairing, "classes": list(classes),
        "left_out": {"cello": "audio only", "voice": "audio only"},
        "rows": dict.fromkeys(MODALITIES, rows), "groups": 2 * rows - 40, "account": account,
    }  # fmt: skip


def retrieval(pair, name, pairing, seeds, level, random):
    audio, image = pair.split("+")
    translation = [
        {
            "seed": seed,
            "audio_to_image": level - 0.01 + 0.006 * random.standard_normal(),
            "image_to_audio": level + 0.01 + 0.006 * random.standard_normal(),
        }
        for seed in range(seeds)
    ]
    return {
        "audio": audio, "image": image, "pair": pair, "dataset": name, "pairing": pairing,
        "top_k": 30, "n_audio": 410, "n_image": 395, "translation": translation,
        "pca": {"audio_to_image": 0.64, "image_to_audio": 0.61},
        "random": {"audio_to_image": 0.622, "image_to_audio": 0.631},
    }  # fmt: skip


def training(pair, pairing, seeds, random):
    runs = []
    for seed in range(seeds):
        length = int(random.integers(25, 45))
        curve = 0.18 + 0.8 * np.exp(-np.arange(length) / 6) + 0.008 * random.random(length)
        history = [
            {"epoch": epoch, "train_loss": float(loss - 0.1), "valid_loss": float(loss),
             "seconds": 0.2}
            for epoch, loss in enumerate(curve)
        ]  # fmt: skip
        best = int(np.argmin(curve))
        runs.append(
            {"seed": seed, "best_epoch": best, "epochs": length,
             "valid_loss": float(curve[best]), "history": history}
        )  # fmt: skip
    audio, image = pair.split("+")
    return {"audio": audio, "image": image, "pair": pair, "pairing": pairing,
            "pairs_per_epoch": 1375, "seeds": runs}  # fmt: skip


def outcomes(classes, seeds, skill, per_class, jitter, random):
    found = []
    truth = np.repeat(np.array(classes, dtype=object), per_class)
    ids = np.array([f"clip-{number}" for number in range(len(truth))])
    for (system, regime, target), level in skill.items():
        if level is None:
            continue
        rows = 18 * len(classes)
        both = regime == "all" and system not in SINGLE.values()
        for seed in range(seeds):
            right = random.random(len(truth)) < level + jitter * random.standard_normal()
            # mistakes fall on the next class more often than on others
            shift = np.where(random.random(len(truth)) < 0.6, 1, random.integers(1, 4, len(truth)))
            place = (np.repeat(np.arange(len(classes)), per_class) + shift) % len(classes)
            predicted = np.where(right, truth, np.array(classes, dtype=object)[place])
            found.append(
                Outcome(
                    system=system,
                    regime=regime,
                    target=target,
                    seed=seed,
                    macro_f1=macro_f1(truth, predicted, classes),
                    train_rows=2 * rows if both else rows,
                    train_rows_of_target=rows if regime == "all" else 0,
                    predictions=pd.DataFrame(
                        {"clip_id": ids, "truth": truth, "predicted": predicted}
                    ),
                )
            )
    return found


@pytest.fixture
def artifacts(tmp_path):
    """Call with `write_artifacts`' options to write artifacts into a fresh workspace."""
    made = []

    def write(**options):
        made.append(None)
        return write_artifacts(tmp_path / f"project-{len(made)}", **options)

    return write


@pytest.fixture(scope="session")
def write_to():
    """`write_artifacts`, for fixtures that keep what they write."""
    return write_artifacts


@pytest.fixture(scope="session")
def typical(tmp_path_factory):
    """Workspace of a typical run, not to be changed."""
    return write_artifacts(tmp_path_factory.mktemp("typical"))


@pytest.fixture(scope="session")
def typical_page(typical):
    """Path of the typical run's page, of commit 0123abc."""
    return build_report(typical, Params(), "0123abc")


@pytest.fixture
def copied(typical, tmp_path):
    """Workspace of the typical run, to be changed."""
    shutil.copytree(typical.root, tmp_path / "copy", ignore=shutil.ignore_patterns("report"))
    return Workspace(tmp_path / "copy")


@pytest.fixture
def params():
    return Params()
