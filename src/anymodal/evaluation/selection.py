"""The pair of encoders that retrieves best."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from anymodal.core.record import Record
from anymodal.evaluation.retrieval import RetrievalResult

RULE = "highest mean over seeds and both directions of NDCG after translation (paper, section 4.1)"


class RankedPair(Record):
    """A pair's NDCG after translation: means over seeds."""

    pair: str
    audio: str
    image: str
    audio_to_image: float
    image_to_audio: float
    mean: float
    """Over both directions."""
    std: float
    """Of `mean` over the seeds, n − 1; 0 for one seed."""


class Selection(Record):
    """The chosen pair, and the ranking of all, best first."""

    pair: str
    audio: str
    image: str
    rule: str
    ranking: tuple[RankedPair, ...]


def select_pair(results: Iterable[RetrievalResult]) -> Selection:
    """Rank pairs by their mean over seeds and directions, ties by name; choose the first."""
    ranking = sorted(map(_ranked, results), key=lambda ranked: (-ranked.mean, ranked.pair))
    best = ranking[0]
    return Selection(
        pair=best.pair, audio=best.audio, image=best.image, rule=RULE, ranking=tuple(ranking)
    )


def _ranked(result: RetrievalResult) -> RankedPair:
    forth = np.array([seed.audio_to_image for seed in result.translation])
    back = np.array([seed.image_to_audio for seed in result.translation])
    both = (forth + back) / 2
    return RankedPair(
        pair=result.pair,
        audio=result.audio,
        image=result.image,
        audio_to_image=float(forth.mean()),
        image_to_audio=float(back.mean()),
        mean=float(both.mean()),
        std=float(both.std(ddof=1)) if len(both) > 1 else 0.0,
    )
