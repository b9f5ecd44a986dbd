"""A classification subset that lost clips beyond its reserve, made level again."""

from __future__ import annotations

import pandas as pd

from anymodal.core.errors import AnymodalError
from anymodal.data.clips import SPLITS
from anymodal.ontology.instruments import INSTRUMENTS


def level(clips: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Clips with as many of every class in each split of the classification subset as the smallest
    class has there, and how many were dropped for it.

    The paper's subset is balanced (section 3.1). The first of each class stay: the table has them
    in the order of the draw, which is random. Other subsets are left alone. `AnymodalError` where
    a class has none in a split.
    """
    mine = clips["subset"] == "classification"
    table = clips[mine]
    counts = (
        table.groupby(["split", "instrument"])
        .size()
        .unstack(fill_value=0)
        .reindex(index=list(SPLITS), columns=list(INSTRUMENTS), fill_value=0)
    )
    empty = [f"{name} ({split})" for split, row in counts.iterrows() for name in row.index[row < 1]]
    if empty:
        raise AnymodalError(
            f"nothing could be fetched of {', '.join(empty[:5])}{', …' if empty[5:] else ''}; run "
            "again later, or raise audioset.reserve and draw again with --replan"
        )
    least = counts.min(axis=1)
    place = table.groupby(["split", "instrument"]).cumcount()
    keep = place < table["split"].map(least)
    kept = clips[~mine | keep.reindex(clips.index, fill_value=False)]
    return kept.reset_index(drop=True), len(clips) - len(kept)
