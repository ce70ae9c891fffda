"""The terminal: progress bars, tables and log lines on standard error; standard output holds results alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from edgelm.progress import Advance

__all__ = ["err", "log_to_terminal", "out", "progress", "table"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        err.print(f"[dim]{escape(record.levelname.lower())}: {escape(record.getMessage())}[/dim]")


def log_to_terminal() -> None:
    """Show what edgelm logs at level WARNING and above; other libraries keep their own settings."""
    logger = logging.getLogger("edgelm")
    if not logger.handlers:
        logger.addHandler(_Handler())


@contextmanager
def progress(name: str, total: int) -> Iterator[Advance]:
    """A bar on a terminal; elsewhere a line at the beginning, one every 30 seconds and one at the end."""
    if err.is_terminal:
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err) as bar:
            task = bar.add_task(name, total=total)
            yield lambda units: bar.advance(task, units)
        return
    start = last = time.monotonic()
    done = 0
    err.print(f"{name} …")

    def advance(units: int) -> None:
        nonlocal done, last
        done += units
        if time.monotonic() - last >= 30:
            last = time.monotonic()
            err.print(f"{name}: {done}/{total} after {last - start:.0f} s")

    yield advance
    err.print(f"{name}: done in {time.monotonic() - start:.1f} s")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table that fits a terminal of 80 columns: the first two columns are words, the rest are numbers."""
    made = Table(title=title, title_justify="left", title_style="italic", header_style="bold", box=box.SIMPLE_HEAD)
    made.show_edge = made.pad_edge = False
    made.padding = (0, 1 if out.width >= 100 else 0)
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index < 2 else "right", no_wrap=index < 2)
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    return made
