"""What the command line shows: progress with rate and time left, and tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
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

from anymodal.stages.base import Advance

# what is printed is data: `balance:train:audio` is no emoji, and `[1]` in a file's name no colour
# a file or a log has no width of its own, and 80 columns would cut the encoders' names
out = Console(soft_wrap=True, emoji=False, markup=False, width=None if sys.stdout.isatty() else 120)
err = Console(
    stderr=True, soft_wrap=True, emoji=False, markup=False,
    width=None if sys.stderr.isatty() else 120,
)  # fmt: skip


class _Rate(ProgressColumn):
    """Items a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress(title: str) -> Iterator[Advance]:
    """A progress bar on the terminal; one closing line where there is none, as in CI."""
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
    """Print a table."""
    shown = Table(title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, overflow="fold")  # a path that is cut short leads nowhere
    for row in rows:
        shown.add_row(*("" if cell is None else str(cell) for cell in row))
    out.print(shown)
