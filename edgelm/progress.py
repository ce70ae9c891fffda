"""What long work tells whoever is watching: one name and one count at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Advance", "Progress", "silent"]

Advance = Callable[[int], None]
"""Called with the number of units done since the last call."""


class Progress(Protocol):
    """A progress bar, plain lines, or nothing."""

    def __call__(self, name: str, total: int) -> AbstractContextManager[Advance]:
        """Open a task of ``total`` units; leaving the context ends it."""


@contextmanager
def silent(name: str, total: int) -> Iterator[Advance]:
    """A ``Progress`` that shows nothing."""
    del name, total
    yield lambda units: None
