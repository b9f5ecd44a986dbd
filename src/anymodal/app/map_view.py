"""The map of the joint space as SVG.

Places are per cent of the frame and sizes pixels, so letters and marks keep their size whatever the
width; colours are CSS variables, so one drawing serves both themes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from anymodal.app import words
from anymodal.app.colours import colour_of
from anymodal.app.joint_map import JointMap, anchor, drawn_rows
from anymodal.app.label_layout import LETTER, LINE, Box, spread
from anymodal.app.markup import text
from anymodal.encoders.base import MODALITIES, Modality
from anymodal.reference import Neighbour, Reference

NARROWEST = 300.0
"""Pixels of the frame on the narrowest screens."""
MOST_DRAWN = 60
"""Clips of each class and modality that are drawn: more would hide one another."""
_MARGIN = 0.04


_KEYS = ", ".join(
    f'<span class="am-keyed"><svg class="am-key" width="12" height="12">{mark}</svg>&nbsp;{name}'
    "</span>"
    for mark, name in (
        ('<circle cx="6" cy="6" r="3.5"/>', "sounds"),
        ('<rect class="am-open" x="2.5" y="2.5" width="7" height="7"/>', "pictures"),
    )
)


class MapView:
    """Draws the map of a classifier's training clips, with an item or without."""

    def __init__(self, reference: Reference) -> None:
        table = reference.table
        self._map = JointMap.fit(reference.vectors)
        self._points = self._map.place(reference.vectors)
        self._total = len(table)
        self._classes = sorted(set(table["instrument"]))
        self._instruments = table["instrument"].to_numpy(str)
        self._modalities = table["modality"].to_numpy(str)
        keys = [tuple(row) for row in table[["clip_id", "modality"]].to_numpy()]
        self._row_of = {key: row for row, key in enumerate(keys)}
        codes = np.unique(
            np.stack([self._instruments, self._modalities]), axis=1, return_inverse=True
        )
        self._drawn = drawn_rows(codes[1].reshape(-1), MOST_DRAWN)
        anchors = [anchor(self._points[self._instruments == name]) for name in self._classes]
        self._anchors = np.array(anchors).reshape(-1, 2)

    def html(
        self,
        vectors: Mapping[Modality, np.ndarray] | None = None,
        neighbours: Sequence[Neighbour] = (),
    ) -> str:
        """The map; with the joint vectors of an item, where it lies and which clips are nearest."""
        if not self._total:
            return ""
        given = vectors or {}
        own = {m: self._map.place(given[m][None])[0] for m in MODALITIES if m in given}
        frame = _Frame(np.concatenate([self._points, *(place[None] for place in own.values())]))
        share = sum(self._map.shares)
        drawn = (
            f"All {self._total:,} training clips"
            if len(self._drawn) == self._total
            else f"{len(self._drawn):,} of {self._total:,} training clips"
        )
        ringed = ", and rings are its nearest clips" if neighbours else ""
        item = f" The crosshair is your item{ringed}." if own else ""
        label = f"Map of the joint space: {drawn.lower()} of {', '.join(self._classes)}." + "".join(
            f" {_nearest_words(m, near)}" for m, near in _by_modality(neighbours).items()
        )
        crosshairs = _crosshairs({m: frame.shares(place[None])[0] for m, place in own.items()})
        middles = spread(
            self._classes, frame.shares(self._anchors), NARROWEST, [c.box for c in crosshairs]
        )
        return (
            f'<section class="am-map" aria-label="Map"><style>{self._dimming()}</style>'
            "<div><h2>Map of the joint space</h2>"
            f"<p>{text(drawn)}: {_KEYS}."
            f"{text(item)} The two directions drawn hold {100 * share:.0f}&nbsp;% of the variance: "
            "what lies apart here is apart; what lies together may be apart in directions not "
            "drawn.</p>"
            f"{self._chooser()}</div>"
            f'<svg class="am-frame" role="img" aria-label="{text(label)}">'
            f"{self._cloud(frame)}{self._rings(neighbours, frame)}"
            f"{self._labels(middles, frame)}{''.join(c.svg for c in crosshairs)}</svg></section>"
        )

    def _chooser(self) -> str:
        chips = "".join(
            f'<label><input type="radio" name="am-class" value="{n}">'
            f'<span class="am-dot" style="background:{colour_of(n)}"></span>{text(name)}</label>'
            for n, name in enumerate(self._classes)
        )
        return (
            '<div class="am-chooser" role="radiogroup" aria-label="Class shown">'
            '<span aria-hidden="true">Show</span><label><input type="radio" '
            f'name="am-class" value="all" checked>all</label>{chips}</div>'
        )

    def _dimming(self) -> str:
        chosen = (f'.am-map:has(input[value="{n}"]:checked)' for n in range(len(self._classes)))
        return "".join(
            f'{one} [data-class]:not([data-class="{n}"]){{opacity:.07}}'
            for n, one in enumerate(chosen)
        )

    def _cloud(self, frame: _Frame) -> str:
        groups = []
        for number, name in enumerate(self._classes):
            for modality in MODALITIES:
                mine = (self._instruments[self._drawn] == name) & (
                    self._modalities[self._drawn] == modality
                )
                where = 100 * frame.shares(self._points[self._drawn[mine]])
                if modality == "audio":
                    marks = "".join(
                        f'<circle cx="{x:.1f}%" cy="{y:.1f}%" r="2.5"/>' for x, y in where
                    )
                    kind = f'fill="{colour_of(number)}"'
                else:
                    marks = "".join(
                        f'<rect x="{x:.1f}%" y="{y:.1f}%" width="5" height="5"/>' for x, y in where
                    )
                    kind = (
                        f'fill="var(--am-paper)" stroke="{colour_of(number)}" '
                        'transform="translate(-2.5 -2.5)"'
                    )
                title = f"<title>{text(name)}, {words.THINGS[modality]}</title>"
                groups.append(f'<g data-class="{number}" {kind}>{title}{marks}</g>')
        return "".join(groups)

    def _labels(self, middles: np.ndarray, frame: _Frame) -> str:
        ends = 100 * frame.shares(self._anchors)
        lines, names = [], []
        for number, (x, y) in enumerate(100 * middles):
            name = text(self._classes[number])
            names.append(f'<text data-class="{number}" x="{x:.1f}%" y="{y:.1f}%">{name}</text>')
            end_x, end_y = ends[number]
            if math.hypot(end_x - x, end_y - y) * NARROWEST > 100 * LINE:
                lines.append(
                    f'<line data-class="{number}" x1="{x:.1f}%" y1="{y:.1f}%" x2="{end_x:.1f}%" '
                    f'y2="{end_y:.1f}%"/>'
                )
        return f'<g class="am-lines">{"".join(lines)}</g>{"".join(names)}'

    def _rings(self, neighbours: Sequence[Neighbour], frame: _Frame) -> str:
        rows = [self._row_of[(one.clip_id, one.modality)] for one in neighbours]
        places = 100 * frame.shares(self._points[rows])
        marks = []
        for one, (x, y) in zip(neighbours, places, strict=True):
            colour = colour_of(self._classes.index(one.instrument))
            marks.append(
                _mark(one.modality, x, y, colour)
                + f'<circle class="am-ring" cx="{x:.1f}%" cy="{y:.1f}%" r="6.5"/>'
            )
        return f'<g class="am-rings">{"".join(marks)}</g>' if marks else ""


class _Frame:
    """A square around points, with y upwards; both axes have one scale."""

    def __init__(self, points: np.ndarray) -> None:
        low, high = points.min(axis=0), points.max(axis=0)
        self._size = float((high - low).max()) * (1 + 2 * _MARGIN) or 1.0
        self._corner = (low + high) / 2 - self._size / 2

    def shares(self, points: np.ndarray) -> np.ndarray:
        """(rows, 2) in [0, 1], from the left and from the top."""
        shares = (points - self._corner) / self._size
        return np.stack([shares[:, 0], 1.0 - shares[:, 1]], axis=1)


def _mark(modality: Modality, x: float, y: float, colour: str) -> str:
    if modality == "audio":
        return f'<circle cx="{x:.1f}%" cy="{y:.1f}%" r="2.5" fill="{colour}"/>'
    return (
        f'<rect x="{x:.1f}%" y="{y:.1f}%" width="5" height="5" fill="var(--am-paper)" '
        f'stroke="{colour}" transform="translate(-2.5 -2.5)"/>'
    )


class _Crosshair(NamedTuple):
    svg: str
    box: Box
    """What it and its name cover where the frame is smallest."""


def _crosshairs(places: Mapping[Modality, np.ndarray]) -> list[_Crosshair]:
    """Where an item's modalities lie, in [0, 1] of the frame; the upper one has its name above it,
    the other below."""
    cross = '<circle r="9"/><path d="M-14 0H-4M4 0H14M0 -14V-4M0 4V14"/>'
    found = []
    for rank, modality in enumerate(sorted(places, key=lambda m: float(places[m][1]))):
        x, y = places[modality]
        name = f"your {words.THING[modality]}"
        # near the upper or the lower edge there is room on one side alone
        below = y < 0.12 or (rank > 0 and y < 0.88)
        shift = 24.0 if below else -24.0
        half = (LETTER * len(name) + 4) / 2
        aside = float(np.clip(x * NARROWEST, half, NARROWEST - half)) - x * NARROWEST
        svg = (
            f'<svg class="am-item" x="{100 * x:.1f}%" y="{100 * y:.1f}%" overflow="visible">'
            f'<g class="am-halo">{cross}</g>{cross}'
            f'<text class="am-own" x="{aside:.0f}" y="{shift:.0f}">{name}</text></svg>'
        )
        top, bottom = min(-14.0, shift - LINE / 2), max(14.0, shift + LINE / 2)
        centre = (x * NARROWEST + aside, y * NARROWEST + (top + bottom) / 2)
        found.append(_Crosshair(svg, Box(*centre, 2 * half, bottom - top)))
    return found


def _by_modality(neighbours: Sequence[Neighbour]) -> dict[Modality, list[Neighbour]]:
    return {m: found for m in MODALITIES if (found := [n for n in neighbours if n.modality == m])}


def _nearest_words(modality: Modality, near: Sequence[Neighbour]) -> str:
    return f"Your item's nearest {words.THINGS[modality]}: {', '.join(n.instrument for n in near)}."
