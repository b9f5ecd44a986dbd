"""How all figures look, and the frame that each is drawn in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from matplotlib import rc_context
from matplotlib.figure import Figure

from anymodal.report.palette import LIGHT

PANEL = 3.3
"""Width of a panel in inches: letters stay readable where a phone scales it to its own width."""

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.titlecolor": LIGHT["ink"],
    "axes.facecolor": LIGHT["paper"],
    "figure.facecolor": LIGHT["paper"],
    "savefig.facecolor": LIGHT["paper"],
    "figure.dpi": 200,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a class may be named with a dollar sign
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["ink"],
    "xtick.labelsize": 7,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.handlelength": 1.4,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}

Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw under the common style and leave matplotlib's settings as they were."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def panels(columns: int, height: float, width: float = PANEL) -> Figure:
    """An empty figure of `columns` panels, each `width` × `height` inches."""
    return Figure((width * max(columns, 1), height), layout="constrained")
