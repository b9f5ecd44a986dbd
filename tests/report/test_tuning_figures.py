"""Figures of a search, from few, many and no trials."""

import math

import numpy as np
import pandas as pd
import pytest

from anymodal.report.tuning_figures import history_figure, importance_figure, parallel_figure


def drawn(figure):
    figure.canvas.draw()
    return figure.axes[0]


def table(states):
    return pd.DataFrame(
        {
            "trial": range(len(states)),
            "state": states,
            "score": [n / 10 if s == "complete" else math.nan for n, s in enumerate(states)],
        }
    )


@pytest.mark.parametrize(
    "states",
    [["complete"] * 3, ["complete", "pruned", "complete", "pruned"], ["complete"], ["pruned"] * 2],
)
def test_history(states):
    axes = drawn(history_figure(table(states), "NDCG"))
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert ("pruned" in names) == ("pruned" in states)
    dots, best = axes.lines[:2]
    assert len(dots.get_xdata()) == states.count("complete")
    if "complete" in states:
        values = list(best.get_ydata())
        assert values == sorted(values) and best.get_xdata()[-1] == len(states) - 1


def test_importances():
    axes = drawn(importance_figure({"a": 0.2, "b": 0.7}))
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.7]
    assert "too few" in drawn(importance_figure({})).texts[0].get_text()


@pytest.mark.parametrize("trials", [1, 2, 25])
def test_parallel(trials):
    rng = np.random.default_rng(0)
    places = pd.DataFrame(rng.random((trials, 3)), columns=["a", "b", "c"])
    places.loc[0, "b"] = math.nan
    scores = pd.Series(rng.random(trials))
    axes = drawn(parallel_figure(places, scores, dict.fromkeys("abc", ("0", "1"))))
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(lines) == trials
    # the best stand out and are drawn last
    assert lines[-1].get_linewidth() > 1
    np.testing.assert_array_equal(lines[-1].get_ydata(), places.loc[scores.idxmax()])
