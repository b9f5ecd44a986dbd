"""The colours of page and figures, for light and dark.

Figures are drawn in the light colours; `anymodal.report.svg` swaps each for a CSS variable, so one
drawing serves both themes. Every light value stands for one name only.

Blue and orange stay apart for all common forms of colour blindness, grey is the reference; nothing
is said by colour alone.
"""

from __future__ import annotations

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#fcfcfb", "#15181c"),
    "ink": ("#1c2126", "#e9ebee"),
    "muted": ("#58616b", "#a2acb7"),
    "rule": ("#d8dce1", "#3a4149"),
    "single": ("#78818b", "#97a1ad"),
    "translated": ("#0a5ea8", "#6cb5f3"),
    "reduced": ("#b95510", "#f0a160"),
    "heat": ("#002a58", "#73b6ef"),
    "heat-low": ("#000001", "#fffffe"),
    "heat-high": ("#fffffd", "#000002"),
}
"""Name → (light, dark). `heat` is laid over `paper` with the value as its opacity; numbers on it
are `heat-low` up to `HEAT_TURN` and `heat-high` above."""

HEAT_TURN = 0.62
"""Opacity of `heat` from which light numbers read better than dark ones (and, in the dark theme,
dark ones better than light)."""

LIGHT = {name: light for name, (light, _) in PALETTE.items()}

SYSTEM_COLOURS = {"SMA": "single", "SMI": "single", "MMT": "translated", "MMP": "reduced"}
"""Palette name of each system."""
