"""Forests of the mixing curve: all in parallel, one thread each, against a plain loop over
scikit-learn with its own threads, and against a loop without threads.

    python benchmarks/mixing.py [--rows 400] [--test 200] [--draws 2] [--rounds 3]

scikit-learn-intelex, where it is installed, takes part too; its forests are others, so that its
mean score is printed in place of the comparison.

The features are Gaussian, 10 classes, 128 dimensions: the size of the joint space. Prints seconds
and ratios of one run, the three taking turns, the best round of each; the scores must be equal.
"""

from __future__ import annotations

import argparse
import importlib.util
import time

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from anymodal.evaluation.classification import Splits
from anymodal.evaluation.forests import ForestSettings, LabelledFeatures, macro_f1
from anymodal.evaluation.mixing import Fit, balanced_order, plan, score_all

CLASSES = [f"class {number}" for number in range(10)]
FORESTS = ForestSettings(trees=100, max_depth=32)


def features(rows: int, seed: int) -> LabelledFeatures:
    """Overlapping classes in 128 dimensions."""
    random = np.random.default_rng(seed)
    codes = np.arange(rows) % len(CLASSES)
    centres = np.random.default_rng(99).standard_normal((len(CLASSES), 128))
    values = (centres[codes] + 3 * random.standard_normal((rows, 128))).astype(np.float32)
    return LabelledFeatures(values, np.array(CLASSES)[codes], np.arange(rows).astype(str))


def loop(fits: list[Fit], splits: Splits, threads: int | None) -> dict[Fit, float]:
    """What one would write without this package."""
    scores = {}
    for fit in fits:
        place = ("audio", "image").index(fit.target)
        other = ("image", "audio")[place]
        own, test = splits["train"][fit.target], splits["test"][fit.target]
        chosen = balanced_order(own.instruments, fit.draw * 2 + place)[: fit.samples]
        forest = RandomForestClassifier(
            FORESTS.trees, max_depth=FORESTS.max_depth, random_state=fit.draw, n_jobs=threads
        ).fit(
            np.concatenate([splits["train"][other].features, own.features[chosen]]),
            np.concatenate([splits["train"][other].instruments, own.instruments[chosen]]),
        )
        scores[fit] = macro_f1(test.instruments, forest.predict(test.features), CLASSES)
    return scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name, default in (("rows", 400), ("test", 200), ("draws", 2), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    splits: Splits = {
        "train": {"audio": features(args.rows, 0), "image": features(args.rows, 1)},
        "test": {"audio": features(args.test, 2), "image": features(args.test, 3)},
    }
    points = [0, args.rows // 4, args.rows // 2]
    fits = plan(points, args.draws, {"audio": args.rows, "image": args.rows})
    ways = {
        "parallel over fits": lambda: dict(score_all(fits, [splits], splits, FORESTS, seed=0)),
        "loop, n_jobs=-1": lambda: loop(fits, splits, -1),
        "loop": lambda: loop(fits, splits, None),
    }
    if importlib.util.find_spec("sklearnex"):
        intel = FORESTS.model_copy(update={"library": "scikit-learn-intelex"})
        ways["parallel, intelex"] = lambda: dict(score_all(fits, [splits], splits, intel, seed=0))
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(args.rounds):
        answers = []
        for name, work in ways.items():
            start = time.perf_counter()
            answers.append(work())
            best[name] = min(best[name], time.perf_counter() - start)
        worst = max(abs(answers[0][fit] - answers[2][fit]) for fit in fits)
        assert worst < 1e-12, f"scores differ by {worst}"
    print(f"{len(fits)} forests of {args.rows} to {2 * args.rows} rows")
    for (name, seconds), scores in zip(best.items(), answers, strict=True):
        ratio = seconds / best["parallel over fits"]
        mean = np.mean(list(scores.values()))
        print(f"{name:20s} {seconds:7.2f} s   {ratio:5.2f} x   mean macro F1 {mean:.3f}")


if __name__ == "__main__":
    main()
