"""A colour for each class.

The sequence of ten by Petroff (Accessible color sequences for data visualization, 2021), made to
stay apart for all common forms of colour blindness; the dark theme has lighter ones of the same
hues. From the eleventh class on they come again: a class is never told by colour alone.
"""

from __future__ import annotations

SEQUENCE = (
    ("#3f90da", "#6aaeea"),
    ("#ffa90e", "#ffb83d"),
    ("#bd1f01", "#f0654a"),
    ("#94a4a2", "#b3c0be"),
    ("#832db6", "#bf86e4"),
    ("#a96b59", "#cf9583"),
    ("#e76300", "#ff8f3f"),
    ("#b9ac70", "#d0c48c"),
    ("#717581", "#9a9fae"),
    ("#92dadd", "#a8e6e9"),
)
"""(light theme, dark theme)."""


def css() -> str:
    """CSS variables `--am-class-0` to `-9` for both themes."""
    light, dark = (
        "; ".join(f"--am-class-{n}: {pair[theme]}" for n, pair in enumerate(SEQUENCE))
        for theme in (0, 1)
    )
    return f":root {{ {light} }}\n.dark {{ {dark} }}\n"


def colour_of(number: int) -> str:
    """CSS colour of the class with this number."""
    return f"var(--am-class-{number % len(SEQUENCE)})"
