"""The joint space in two dimensions, as a Plotly figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from gradio.components.plot import PlotData
from markupsafe import escape
from sklearn.decomposition import PCA

from anymodal.app.rendering import render
from anymodal.classifier.reference import Neighbour, Reference
from anymodal.core.modality import Modality

COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
           "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")  # fmt: skip
"""Of the classes, then repeated. Petroff, "Accessible color sequences for data visualization"
(2021): distinct for all common forms of colour blindness."""
SYMBOLS: dict[Modality, str] = {"audio": "circle", "image": "square-open"}
CLIPS = 60
"""Training clips of each class and modality that are drawn: more would cover one another."""
SIDE = 300.0
"""Pixels of the map on the narrowest screens, where labels must not cover one another."""
LETTER, LINE = 7.0, 17.0
"""Width of a letter and height of a label in pixels, generously."""
CROSSHAIR = 13.0
"""Radius of the item's mark, in pixels."""
_MARGIN = 0.05
_AXIS = {"range": [0, 1], "visible": False, "fixedrange": True}


class JointMap:
    """The plane of greatest variance through a classifier's training clips.

    It is linear (PCA), so an item is placed by the same map as the clips and moves none of them.
    """

    def __init__(self, reference: Reference) -> None:
        table = reference.table.reset_index(drop=True)
        # of equal vectors the ratio is 0 / 0
        with np.errstate(invalid="ignore"):
            vectors = reference.vectors.astype(np.float64)
            self._pca = PCA(2, svd_solver="covariance_eigh").fit(vectors)
        self.variance = float(np.nan_to_num(self._pca.explained_variance_ratio_).sum())
        self._points = self._pca.transform(reference.vectors)
        self._table = table
        keys = zip(table["clip_id"], table["modality"], strict=True)
        self._row_of = {key: row for row, key in enumerate(keys)}
        self.classes = sorted(set(table["instrument"]))
        shuffled = table.sample(frac=1, random_state=0)
        self.drawn = np.sort(shuffled.groupby(["instrument", "modality"]).head(CLIPS).index)

    def html(self, neighbours: Sequence[Neighbour] = ()) -> str:
        """What the map shows, as text: its heading, legend and description for screen readers."""
        return render(
            "map",
            classes=[(name, COLOURS[n % len(COLOURS)]) for n, name in enumerate(self.classes)],
            drawn=len(self.drawn),
            total=len(self._table),
            variance=self.variance,
            near=neighbours,
        )

    def figure(
        self,
        vectors: Mapping[Modality, np.ndarray] | None = None,
        neighbours: Sequence[Neighbour] = (),
    ) -> go.Figure:
        """The clips, a trace per class, then the rings around `neighbours` and the crosshairs of
        an item with joint vectors `vectors`."""
        vectors = vectors or {}
        own = self._pca.transform(np.stack(list(vectors.values()))) if vectors else np.empty((0, 2))
        points = np.concatenate([self._points, own])
        low, high = points.min(axis=0), points.max(axis=0)
        # both axes have one scale
        side = float((high - low).max()) * (1 + 2 * _MARGIN) or 1.0
        points = (points - (low + high) / 2) / side + 0.5
        points, own = points[: len(self._points)], points[len(self._points) :]

        table = self._table
        ringed = [self._row_of[one.clip_id, one.modality] for one in neighbours]
        drawn = table.loc[np.union1d(self.drawn, ringed).astype(int)]
        figure = go.Figure()
        for number, name in enumerate(self.classes):
            rows = drawn[drawn["instrument"] == name]
            figure.add_scatter(
                **_marks(points[rows.index]),
                text=[f"{escape(name)}, {m}" for m in rows["modality"]],
                hovertemplate="%{text}<extra></extra>",
                marker={
                    "color": COLOURS[number % len(COLOURS)],
                    "symbol": [SYMBOLS[m] for m in rows["modality"]],
                },
            )
        rings = {"symbol": "circle-open", "size": 13, "line": {"width": 1.5}}
        figure.add_scatter(**_marks(points[ringed]), marker=rings, hoverinfo="skip")
        cross = {"symbol": "circle-cross-open", "size": 2 * CROSSHAIR, "line": {"width": 2.5}}
        figure.add_scatter(**_marks(own), marker=cross, hoverinfo="skip")
        self._add_labels(figure, points, dict(zip(vectors, own, strict=True)))
        figure.update_layout(
            xaxis=_AXIS, yaxis=_AXIS, showlegend=False, dragmode=False,
            font={"size": 12.5, "family": "system-ui, sans-serif"},
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
            paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        )  # fmt: skip
        return figure

    def plot(
        self,
        vectors: Mapping[Modality, np.ndarray] | None = None,
        neighbours: Sequence[Neighbour] = (),
    ) -> PlotData:
        """`figure` for `gr.Plot`, without Plotly's toolbar."""
        figure = json.loads(self.figure(vectors, neighbours).to_json())
        figure["config"] = {"displayModeBar": False}
        return PlotData(type="plotly", plot=json.dumps(figure))

    def _add_labels(
        self, figure: go.Figure, points: np.ndarray, own: Mapping[Modality, np.ndarray]
    ) -> None:
        """Names of the classes at their clips nearest to the median, and of the item."""
        anchors = []
        for name in self.classes:
            cloud = points[self._table["instrument"] == name]
            distances = ((cloud - np.median(cloud, axis=0)) ** 2).sum(axis=1)
            anchors.append(cloud[np.argmin(distances)])
        items = [f"your {modality}" for modality in own]
        ends = np.array([*own.values(), *anchors])
        places = place_labels([*items, *self.classes], ends, ends[: len(own)])
        for name, (x, y), label in zip(self.classes, anchors, places[len(own) :], strict=True):
            figure.add_annotation(
                text=str(escape(name)), x=x, y=y, ax=label[0], ay=label[1],
                axref="x", ayref="y", arrowhead=0, arrowwidth=1,
            )  # fmt: skip
        for name, (x, y) in zip(items, places, strict=False):
            figure.add_annotation(text=f"<b>{name}</b>", x=x, y=y, showarrow=False)


def place_labels(
    names: Sequence[str], anchors: np.ndarray, crosshairs: np.ndarray
) -> list[tuple[float, float]]:
    """Centres of labels in [0, 1], moved up or down from `anchors` (names, 2) until none covers
    another or a crosshair (n, 2), in a frame of at least `SIDE` pixels."""
    radius = CROSSHAIR / SIDE
    boxes = [(x, y, radius, radius) for x, y in crosshairs]
    for name, (x, y) in zip(names, anchors, strict=True):
        width, height = (LETTER * len(name) + 4) / 2 / SIDE, LINE / 2 / SIDE
        x = float(np.clip(x, width, max(width, 1 - width)))
        shifts = sorted(range(-40, 41), key=abs)
        tried = np.clip(y + height * np.array(shifts), height, 1 - height).tolist()
        free = (
            y
            for y in tried
            if all(
                abs(x - x2) >= width + width2 or abs(y - y2) >= height + height2 - 1e-9
                for x2, y2, width2, height2 in boxes
            )
        )
        boxes.append((x, next(free, tried[0]), width, height))
    return [(x, y) for x, y, _, _ in boxes[len(crosshairs) :]]


def _marks(points: np.ndarray) -> dict[str, Any]:
    return {"x": points[:, 0], "y": points[:, 1], "mode": "markers"}
