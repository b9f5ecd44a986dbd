"""The figure of scores within and across sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from anymodal.report.drawing import panels, styled
from anymodal.report.names import REGIME_NAMES
from anymodal.report.palette import LIGHT, SYSTEM_COLOURS

PROTOCOL_NAMES = {
    "within": "within sources",
    "matched": "within sources, as few rows",
    "across": "across sources",
}
_MARKS = {"within": ("o", True), "matched": ("D", False), "across": ("o", False)}
"""Marker of each protocol and whether it is filled."""
_ORDER = (
    ("MMT", "zero-shot"), ("MMT", "all"), ("SMA", "all"), ("SMI", "all"), ("MMP", "all"),
    ("MMP", "zero-shot"),
)  # fmt: skip


@styled
def across_figure(scores: Sequence[Mapping[str, Any]], chance: float | None = None) -> Figure:
    """Macro F1 of every system on one target: a filled dot within sources, an open one across
    them, a line between the two, a small open square for as few rows within sources.

    `scores` as `anymodal.across_scores.scores` gives them; `chance`, where given, is a dashed line.
    """
    found = {(o["system"], o["regime"], o["protocol"]): float(o["mean"]) for o in scores}
    keys = [key for key in _ORDER if any(k[:2] == key for k in found)]
    figure = panels(1, 0.95 + 0.32 * len(keys))
    axes = figure.add_subplot()
    for place, (system, regime) in enumerate(keys):
        colour = LIGHT[SYSTEM_COLOURS.get(system, "single")]
        own = {p: found[system, regime, p] for p in _MARKS if (system, regime, p) in found}
        axes.plot(
            [min(own.values()), max(own.values())], [place, place], color=colour, linewidth=1.4
        )
        for protocol, value in own.items():
            marker, filled = _MARKS[protocol]
            axes.plot(
                value,
                place,
                marker,
                markersize=4 if protocol == "matched" else 6.5,
                color=colour,
                markerfacecolor=colour if filled else LIGHT["paper"],
                clip_on=False,
                zorder=3,
            )
        last = own.get("across", own.get("within"))
        axes.text(1.04, place, f"{last:.3f}", va="center", transform=axes.get_yaxis_transform())
    if chance is not None and keys:
        axes.axvline(chance, color=LIGHT["ink"], linewidth=1.0, linestyle=(0, (3, 2)))
    measured = [p for p in PROTOCOL_NAMES if any(key[2] == p for key in found)]
    handles = []
    for protocol in measured:
        marker, filled = _MARKS[protocol]
        handles += axes.plot(
            [],
            [],
            marker,
            markersize=4 if protocol == "matched" else 6.5,
            color=LIGHT["muted"],
            markerfacecolor=LIGHT["muted"] if filled else LIGHT["paper"],
            label=PROTOCOL_NAMES[protocol],
        )
    axes.set_yticks(range(len(keys)), [f"{s}, {REGIME_NAMES[r]}" for s, r in keys])
    axes.set_ylim(max(len(keys), 1) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("macro F1")
    axes.grid(axis="x")
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
