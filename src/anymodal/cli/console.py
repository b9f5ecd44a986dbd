"""What the command line prints: tables, and progress with rate and time left."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# what is printed is data: `balance:train:audio` is no emoji, and `[1]` in a file's name no colour
out = Console(soft_wrap=True, emoji=False, markup=False, highlight=False)
err = Console(stderr=True, soft_wrap=True, emoji=False, markup=False, highlight=False)


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, if standard error is a terminal; yields a function of (done, total)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; where standard output is no terminal, one line per row, never wrapped."""
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        drawn = Table(title=title, title_justify="left")
        for column in columns:
            drawn.add_column(column, overflow="fold")  # a path that is cut short leads nowhere
        for row in cells:
            drawn.add_row(*row)
        out.print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    print(title)
    for row in [list(columns), *cells]:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
