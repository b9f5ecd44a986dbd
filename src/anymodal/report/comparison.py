"""The paper's findings beside this run's, and what differs between them.

Paper: Wu, Fuentes, Bello, "Exploring modality-agnostic representations for music classification",
2021 (arXiv:2106.01149). Its figures give no exact numbers, so its words are quoted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from anymodal.classification import SINGLE
from anymodal.encoders.base import MODALITIES
from anymodal.report.evidence import Evidence
from anymodal.report.names import REGIME_NAMES, THINGS
from anymodal.report.wording import (
    OTHER,
    Scores,
    apart,
    listed,
    pair_words,
    paper_share,
    percent,
    plural,
)


@dataclass(frozen=True)
class Beside:
    """One line of the comparison."""

    what: str
    paper: str
    here: str


def findings(evidence: Evidence, scores: Scores) -> list[Beside]:
    """What the paper found, and what this run finds."""
    retrieved = [score.mean for score in evidence.selection.ranking]
    low, high = apart(min(retrieved), max(retrieved), least=3)
    count = plural(len(retrieved), "pair")
    return [
        Beside(
            "MMT zero-shot, as a share of the best system",
            "“almost 70%” (section 4.2, both modalities)",
            _each(_share(scores, target) for target in MODALITIES),
        ),
        Beside(
            "MMP zero-shot",
            "“guessing some classes right (very little)” (section 4.2)",
            _each(_untranslated(scores, target) for target in MODALITIES),
        ),
        Beside(
            "All training data, best system first",
            "MMP with “almost the same performance” as SM, MMT behind both (section 4.2, Fig. 3)",
            _each(_order(scores, target) for target in MODALITIES),
        ),
        Beside(
            "Pair that retrieves best",
            "YAMNet + ResNet50, of 9 pairs (section 4.1)",
            f"{pair_words(evidence.selection.pair)}, of {count}",
        ),
        Beside(
            "Retrieval, NDCG",
            "axis of Fig. 2: 0.79 to 0.815 (NDCG@30)",
            f"{low if low == high else f'{low} to {high}'} "
            f"(NDCG@{evidence.retrieval[0].top_k}, {count}, mean of both directions)",
        ),
    ]


def differences(evidence: Evidence, scores: Scores) -> list[Beside]:
    """The conditions that keep the two from being compared number by number."""
    dataset, results, first = evidence.dataset, evidence.results, evidence.retrieval[0]
    pairs = evidence.trainings.pairs_per_epoch
    rows = {
        target: row
        for target in MODALITIES
        if (row := scores.get(("MMT", "zero-shot", target))) is not None
    }
    # zero-shot on one modality trains on all training rows of the other
    train = [f"{rows[target].train_rows:,} {THINGS[OTHER[target]]}" for target in rows]
    test = [f"{rows[t].test_rows:,} {THINGS[t]}" for t in rows]
    return [
        Beside("Dataset", "AudioSet, filmed clips", dataset.name),
        Beside(
            "Pairing",
            "clip: one moment of one video",
            {"clip": "clip: one moment of one recording", "class": "class: by label alone"}[
                dataset.pairing
            ],
        ),
        Beside("Classes (chance)", "18 (0.056)", _classes(evidence, scores)),
        Beside("Encoders classified with", "YAMNet, ResNet50", pair_words(results.pair)),
        Beside(
            "Pairs that train the translation",
            "130,000",
            f"{pairs:,} an epoch" if pairs is not None else "not recorded",
        ),
        Beside(
            "Clips retrieved among",
            "10,000 pairs",
            f"{first.n_audio:,} sounds, {first.n_image:,} pictures",
        ),
        Beside("Classifier’s training rows", "16,200 clips", listed(train) if train else "none"),
        Beside("Test rows", "1,800 clips, audited by hand", listed(test) if test else "none"),
    ]


def _each(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part) or "not measured"


def _share(scores: Scores, target: str) -> str:
    found = paper_share(scores, target)
    if found is None:
        return ""
    share, best = found
    name = (
        best.system
        if best.system in SINGLE.values()
        else f"{best.system}, {REGIME_NAMES[best.regime]}"
    )
    return f"{percent(share)} on {THINGS[target]} (best: {name})"


def _untranslated(scores: Scores, target: str) -> str:
    row = scores.get(("MMP", "zero-shot", target))
    if row is None:
        return ""
    return f"{row.mean:.3f} on {THINGS[target]} (chance {row.chance:.3f})"


def _order(scores: Scores, target: str) -> str:
    systems = (SINGLE[target], "MMT", "MMP")  # type: ignore[index]
    rows = [scores[s, "all", target] for s in systems if (s, "all", target) in scores]
    if not rows:
        return ""
    rows.sort(key=lambda row: -row.mean)
    order = ", ".join(f"{row.system} {row.mean:.3f}" for row in rows)
    return f"{order} on {THINGS[target]}"


def _classes(evidence: Evidence, scores: Scores) -> str:
    chances = {f"{row.chance:.3f}" for row in scores.values()}
    return f"{len(evidence.results.classes)} ({listed(sorted(chances))})"
