"""Out of memory, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from edgelm.errors import RecipeError

__all__ = ["fitting"]

_WORDS = ("can't allocate memory", "not enough memory")  # of torch's CPU allocator, which has no type of error for it


@contextmanager
def fitting(what: str, remedy: str) -> Iterator[None]:
    """Turn out of memory, in whichever way it is raised, into one line.

    Args:
        what: what must fit, as it begins the line; plural.
        remedy: what to set.

    Raises:
        RecipeError: it did not fit.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        by_type = isinstance(exc, MemoryError | torch.OutOfMemoryError)
        if not by_type and not any(words in str(exc) for words in _WORDS):
            raise
        raise RecipeError(f"{what} do not fit into memory: {remedy}") from exc
