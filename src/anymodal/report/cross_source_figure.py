"""The figure of scores within and across sources."""

from __future__ import annotations

from matplotlib.figure import Figure

from anymodal.evaluation.captions import PROTOCOL_NAMES, REGIME_NAMES
from anymodal.evaluation.classification import SystemKey
from anymodal.evaluation.cross_source import Protocol
from anymodal.evaluation.cross_source_scores import TargetResult
from anymodal.report.drawing import panels, styled
from anymodal.report.palette import LIGHT, SYSTEM_COLOURS

_MARKS: dict[Protocol, tuple[str, float, bool]] = {
    "within": ("o", 6.5, True),
    "size_matched": ("D", 4, False),
    "cross_source": ("o", 6.5, False),
}
"""Marker of each protocol, its size, and whether it is filled."""
SYSTEMS: tuple[SystemKey, ...] = (
    ("MMT", "zero-shot"), ("MMT", "all"), ("SMA", "all"), ("SMI", "all"), ("MMP", "all"),
    ("MMP", "zero-shot"),
)  # fmt: skip


@styled
def cross_source_figure(target: TargetResult) -> Figure:
    """Macro F1 of every system on one target: a dot per protocol, a line over all of them, the
    number of the last."""
    means = {(s.system, s.regime, s.protocol): s.mean for s in target.scores}
    keys = [key for key in SYSTEMS if any(measured[:2] == key for measured in means)]
    figure = panels(1, 0.95 + 0.32 * len(keys))
    axes = figure.add_subplot()
    for place, key in enumerate(keys):
        colour = LIGHT[SYSTEM_COLOURS[key[0]]]
        own = {p: means[*key, p] for p in _MARKS if (*key, p) in means}
        ends = [min(own.values()), max(own.values())]
        axes.plot(ends, [place, place], color=colour, linewidth=1.4)
        for protocol, mean in own.items():
            marker, size, filled = _MARKS[protocol]
            axes.plot(
                mean, place, marker, markersize=size, color=colour, clip_on=False, zorder=3,
                markerfacecolor=colour if filled else LIGHT["paper"],
            )  # fmt: skip
        last = list(own.values())[-1]
        axes.text(1.04, place, f"{last:.3f}", va="center", transform=axes.get_yaxis_transform())
    if target.chance is not None:
        axes.axvline(target.chance, color=LIGHT["ink"], linewidth=1.0, linestyle=(0, (3, 2)))
    grey = LIGHT["muted"]
    for protocol, (marker, size, filled) in _MARKS.items():
        if any(score.protocol == protocol for score in target.scores):
            axes.plot(
                [], [], marker, markersize=size, color=grey, label=PROTOCOL_NAMES[protocol],
                markerfacecolor=grey if filled else LIGHT["paper"],
            )  # fmt: skip
    axes.set_yticks(range(len(keys)), [f"{s}, {REGIME_NAMES[r]}" for s, r in keys])
    axes.set_ylim(len(keys) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("macro F1")
    axes.grid(axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
