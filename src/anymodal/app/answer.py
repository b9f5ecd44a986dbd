"""The answer to one item as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from anymodal.app.previews import AUDIO_S, audio_address, audio_of, frames_of, image_address
from anymodal.app.rendering import render
from anymodal.classifier.prediction import UNKNOWN, Prediction, ranked
from anymodal.core.modality import MODALITIES
from anymodal.media.segmentation import SegmentedItem, is_blank

TIMELINE_CLASSES = 4


def answer_html(
    answer: Prediction, item: SegmentedItem, name: str, rate: int, calibration: Mapping[str, Any]
) -> str:
    """Class or unknown with its reason, probabilities, timeline and previews of an item.

    `rate` is of its audio, in Hz; `calibration` the facts of the classifier's calibrator.
    """
    parts = [window.of(m) for window in item.windows for m in MODALITIES]
    audio = audio_of(item, rate)
    return render(
        "answer",
        name=name,
        answer=answer,
        item=item,
        ranked=answer.top(len(answer.classes)),
        blank=all(is_blank(part) for part in parts if part is not None),
        unused=[m for m in item.modalities() if answer.modality not in (m, "both")],
        out_of_distribution=sum(not window.known for window in answer.windows),
        calibration_rows=calibration.get("calibration_rows"),
        timeline=timeline(answer, item.seconds) if len(answer.windows) > 1 else None,
        frames=[(one.start_s, image_address(one.image)) for one in frames_of(item)],  # type: ignore[arg-type]
        audio=audio_address(audio, rate) if len(audio) else None,
        cut_at=AUDIO_S if len(audio) >= AUDIO_S * rate else None,
    )


def timeline(answer: Prediction, length_s: float) -> dict[str, Any]:
    """Probabilities over time, for the template.

    `rows`: (class, cells) of the likeliest classes; a cell is (left and width in per cent,
    probability, known). `stretches`: (start, end, answer) of windows with the same answer, in s.
    """
    windows = answer.windows
    end = max(length_s, windows[-1].start_s + windows[-1].seconds)
    edges = [*(window.start_s for window in windows), end]
    table = np.stack([window.probabilities for window in windows])
    rows = [
        (
            answer.classes[code],
            [
                (100 * start / end, 100 * (stop - start) / end, table[n, code], windows[n].known)
                for n, (start, stop) in enumerate(pairwise(edges))
            ],
        )
        for code in np.argsort(-table.max(axis=0), kind="stable")[:TIMELINE_CLASSES]
    ]
    names = [
        ranked(answer.classes, window.probabilities)[0][0] if window.known else UNKNOWN
        for window in windows
    ]
    runs = [list(run) for _, run in groupby(range(len(names)), key=names.__getitem__)]
    stretches = [(edges[run[0]], edges[run[-1] + 1], names[run[0]]) for run in runs]
    return {"end": end, "rows": rows, "stretches": stretches}
