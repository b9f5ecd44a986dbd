"""What the figures of retrieval, classes, training and data say, in sentences.

As in `anymodal.report.wording`, each sentence is chosen by the numbers that it names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from anymodal.report.evidence import Evidence
from anymodal.report.names import THINGS, WAY_NAMES, WAYS
from anymodal.report.records import Trainings, Ways
from anymodal.report.tables import NO_CLASS, answers, class_f1, confusion_counts, confusions
from anymodal.report.wording import apart, listed, pair_words, percent, plural


def retrieval_reading(evidence: Evidence) -> list[str]:
    """What the retrieval figure says."""
    ranking, chosen = evidence.selection.ranking, evidence.selection.pair
    best = next((entry for entry in ranking if entry.pair == chosen), ranking[0])
    scores = next((score for score in evidence.retrieval if score.pair == best.pair), None)
    assert scores is not None, "read_evidence reads every ranked pair"
    k = scores.top_k
    numbers = apart(best.mean, best.audio_to_image, best.image_to_audio, least=3)
    sentences = [
        f"{pair_words(best.pair)} retrieves with NDCG@{k} {numbers[0]} "
        f"({numbers[1]} from sound to picture, {numbers[2]} from picture to sound)."
    ]
    named = {"random": "Random order", "pca": "PCA, which aligns nothing,"}
    sentences += [_beside(best, getattr(scores, name), what) for name, what in named.items()]
    if scores.untranslated is not None:
        used = f"{scores.untranslated.audio} with {scores.untranslated.image}, untranslated,"
        sentences.append(_beside(best, scores.untranslated, used))
    others = sorted((e for e in ranking if e.pair != best.pair), key=lambda e: -e.mean)
    if not others:
        sentences.append("It is the only pair that was tried, so nothing was chosen.")
        return sentences
    gap = best.mean - others[0].mean
    name = pair_words(others[0].pair)
    if len(scores.translation) < 2:
        doubt = "; with one seed it is unknown whether that means anything"
    elif gap > max(best.std, others[0].std):
        doubt = ", more than the seeds spread"
    else:
        doubt = ", no more than the seeds spread, so another run may choose otherwise"
    if gap >= 0:
        sentences.append(f"The next pair, {name}, is {gap:.3f} behind{doubt}.")
    else:
        sentences.append(f"{name} retrieves better by {-gap:.3f}{doubt}.")
    return sentences


def _beside(best: Ways, baseline: Ways, what: str) -> str:
    gains = {way: getattr(best, way) - getattr(baseline, way) for way in WAYS}
    numbers = apart(*(getattr(baseline, way) for way in WAYS), least=3)
    above = [WAY_NAMES[way] for way in WAYS if gains[way] > 0]
    verdict = {
        2: "translation is above it both ways",
        1: f"translation is above it only {''.join(above)}",
        0: "translation is not above it either way",
    }[len(above)]
    return f"{what} scores {numbers[0]} and {numbers[1]}: {verdict}."


def axis_words(low: float) -> str:
    """Where the NDCG axis starts."""
    if low == 0:
        return "The axis starts at 0."
    return f"The axis starts at {low:.2f}, not at 0: read positions, not lengths."


def classes_reading(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    target: str,
    regime: str = "zero-shot",
    counts: pd.DataFrame | None = None,
) -> list[str]:
    """Best and worst class of MMT, how much the translation had of the worst, and the commonest
    mistakes.

    `counts` as `anymodal.report.tables.drawn_counts` gives them; the paper (section 4.3) finds the
    classes worst that are rare where the translation is trained.
    """
    rows = answers(predictions, "MMT", regime, target)
    if rows.empty:
        return [f"MMT has no {regime} answers for {THINGS[target]}."]
    scores = class_f1(rows, classes).dropna()
    best, worst = scores.idxmax(), scores.idxmin()
    high, low = apart(scores.max(), scores.min())
    if scores.max() == scores.min():
        sentences = [f"Every class has F1 {high}."]
    else:
        sentences = [f"Named best is {best} (F1 {high}), worst {worst} ({low})."]
        sentences += _rarity(str(worst), counts)
    wrong = confusions(confusion_counts(rows, classes))
    if not wrong:
        return [*sentences, "No test row was named wrongly with any seed."]
    shares = [
        f"{truth} as {said} ({count} of {total}, {percent(count / total)})"
        for truth, said, count, total in wrong[:3]
    ]
    lead = "The commonest mistakes" if len(shares) > 1 else "The only kind of mistake"
    return [*sentences, f"{lead}: {listed(shares)}."]


def _rarity(name: str, counts: pd.DataFrame | None) -> list[str]:
    had, usual = [], []
    for modality, rows in translated_rows(counts).items():
        if name in rows:
            thing = THINGS.get(modality, "clips")
            had.append(f"{int(rows[name]):,} {thing}")
            usual.append(f"{rows.median():,.0f}")
    if not had:
        return []
    return [
        f"Of {name} the translation trained on {listed(had)}, "
        f"of the middling class on {listed(usual)}."
    ]


def labels_seen(counts: pd.DataFrame) -> str:
    """How many labelled rows the translation had, of class-paired data; "" where unknown."""
    seen = [
        f"{int(rows.sum()):,} {THINGS.get(modality, 'clips')}"
        for modality, rows in translated_rows(counts).items()
    ]
    return f"The translation learned from the labels of {listed(seen)}." if seen else ""


def translated_rows(counts: pd.DataFrame | None) -> dict[str, pd.Series]:
    """Training rows of the translation by class, for each modality."""
    if counts is None:
        return {}
    found = {}
    for place, column in enumerate(counts.columns):
        modality, subset, split = map(str, tuple(column))
        rows = counts.iloc[:, place].drop(NO_CLASS, errors="ignore")
        if (subset, split) == ("translation", "train") and len(rows):
            found[modality] = rows
    return found


def training_reading(trainings: Trainings, max_epochs: int) -> list[str]:
    """How long the trainings ran and what they reached."""
    runs = [run for run in trainings.seeds if run.history]
    if not runs:
        return ["No training was recorded."]
    lengths = [len(run.history) for run in runs]
    best = [kept_epoch([e.valid_loss for e in run.history]) for run in runs]
    epochs = "epoch" if max(lengths) == 1 else "epochs"
    sentences = [f"{plural(len(runs), 'training')} of {_range(lengths)} {epochs}."]
    kept = [epoch for epoch in best if epoch is not None]
    if not kept:
        return [*sentences, "No epoch has a finite validation loss: training diverged."]
    losses = [
        float(run.history[epoch - 1].valid_loss)  # type: ignore[arg-type]
        for run, epoch in zip(runs, best, strict=True)
        if epoch is not None
    ]
    low, high = apart(min(losses), max(losses), least=3)
    reached = low if low == high else f"{low} to {high}"
    sentences.append(f"The epoch kept is number {_range(kept)}, with validation loss {reached}.")
    if len(kept) < len(runs):
        sentences.append(f"{plural(len(runs) - len(kept), 'training')} diverged.")
    full = sum(length >= max_epochs for length in lengths)
    if full:
        sentences.append(f"{full} of them used up all {max_epochs} epochs and may not be done.")
    return sentences


def kept_epoch(losses: Sequence[float | None]) -> int | None:
    """Number, from 1, of the first epoch with the lowest finite validation loss."""
    finite = [
        (loss, number)
        for number, loss in enumerate(losses, 1)
        if loss is not None and math.isfinite(loss)
    ]
    return min(finite)[1] if finite else None


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def skew_words(counts: pd.DataFrame) -> str:
    """How uneven the classes are in the translation's training rows."""
    parts = []
    for modality, rows in translated_rows(counts).items():
        most, least = str(rows.idxmax()), str(rows.idxmin())
        name = THINGS.get(modality, "clips")
        if rows.max() == rows.min():
            parts.append(f"every class has {plural(int(rows.max()), 'row')} of {name}")
        else:
            parts.append(
                f"{name} range from {int(rows.min())} ({least}) to {int(rows.max())} ({most})"
            )
    if not parts:
        return ""
    return f"In the translation’s training rows {'; '.join(parts)}."
