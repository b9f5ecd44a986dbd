"""What was heard and seen over time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from anymodal.app import words
from anymodal.app.markup import text
from anymodal.prediction import UNKNOWN, MomentAnswer, Prediction, ranked

ROWS = 4
"""Classes that are drawn: those that reach the highest probabilities."""
_HATCH = (
    '<svg class="am-none" width="0" height="0" aria-hidden="true"><pattern id="am-hatch" width="5" '
    'height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V5" stroke="var(--am-muted)" stroke-width="2"/></pattern></svg>'
)


def timeline_html(answer: Prediction, length_s: float) -> str:
    """Probabilities over time, a row a class, and the same as a list; empty for a single moment.

    `length_s` is that of the item, in seconds.
    """
    if len(answer.moments) < 2:
        return ""
    end = max(length_s, answer.moments[-1].start_s + answer.moments[-1].seconds)
    table = np.stack([one.probabilities for one in answer.moments])
    order = np.argsort(-table.max(axis=0), kind="stable")[:ROWS]
    edges = [one.start_s for one in answer.moments] + [end]
    rows = "".join(
        f'<span class="am-name">{text(answer.classes[code])}</span>'
        f'<svg height="22" role="presentation">{_cells(answer, table[:, code], edges, end)}</svg>'
        for code in order
    )
    told = "".join(f"<li>{text(line)}</li>" for line in stretches(answer, end))
    hatched = (
        f'{_HATCH}<p class="am-small"><span class="am-hatch"></span> unlike anything it was '
        "trained on</p>"
        if not all(one.known for one in answer.moments)
        else ""
    )
    return (
        '<h3>Over time</h3><div class="am-time" aria-hidden="true">'
        f'{rows}<span></span><span class="am-axis"><span>0{words.NBSP}s</span>'
        f"<span>{words.seconds(end)}</span></span></div>{hatched}"
        f"<details><summary>as a list</summary><ul>{told}</ul></details>"
    )


def stretches(answer: Prediction, end: float) -> list[str]:
    """Neighbouring moments of the same answer as one line each: `0 s to 4 s: drums`."""
    names = [_name(answer, one) for one in answer.moments]
    starts = [one.start_s for one in answer.moments]
    firsts = [0, *(n for n in range(1, len(names)) if names[n] != names[n - 1])]
    bounds = [*(starts[n] for n in firsts), end]
    return [
        f"{words.seconds(since)} to {words.seconds(until)}: {names[first]}"
        for first, (since, until) in zip(firsts, pairwise(bounds), strict=True)
    ]


def _name(answer: Prediction, moment: MomentAnswer) -> str:
    return ranked(answer.classes, moment.probabilities)[0][0] if moment.known else UNKNOWN


def _cells(answer: Prediction, shares: np.ndarray, edges: list[float], end: float) -> str:
    cells = []
    for one, share, (since, until) in zip(answer.moments, shares, pairwise(edges), strict=True):
        where = f'x="{100 * since / end:.2f}%" width="{100 * (until - since) / end:.2f}%"'
        cells.append(f'<rect {where} height="22" opacity="{max(float(share), 0.03):.2f}"/>')
        if not one.known:
            cells.append(f'<rect class="am-strange" {where} height="22"/>')
    return "".join(cells)
