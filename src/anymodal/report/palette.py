"""The colours of page and figures, for light and dark.

Figures are drawn in the light colours; `anymodal.report.svg` swaps each for a CSS variable, so one
drawing serves both themes. Every light value stands for one name only.

Blue and orange stay apart for all common forms of colour blindness, grey is the reference; nothing
is told by colour alone.
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


def css_variables() -> dict[str, dict[str, str]]:
    """`{"light" | "dark": {variable: colour}}` with variables named `--<name>`."""
    return {
        theme: {f"--{name}": colours[place] for name, colours in PALETTE.items()}
        for place, theme in enumerate(("light", "dark"))
    }


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` in [0, 1] (WCAG 2.1)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.1)."""
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def blend(over: str, under: str, opacity: float) -> str:
    """Colour of `over` laid on `under` with `opacity` in [0, 1]."""
    mixed = (
        round(
            int(over[place : place + 2], 16) * opacity
            + int(under[place : place + 2], 16) * (1 - opacity)
        )
        for place in (1, 3, 5)
    )
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
