"""Rows of like length run together, for engines that this costs less than one by one, as on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgelm.runtimes import Logits, Session
from edgelm.text import Window

__all__ = ["STEP", "outputs"]

STEP = 8
"""Lengths are rounded up to a multiple: tensor cores are fed best so, and few shapes have to be recorded."""

_SLAB = 4
"""Batches that are sorted and held at a time, so that a long list takes no more memory than a short one."""


def outputs(session: Session, cut: Sequence[Sequence[Window]], at_once: int, most: int) -> Iterator[list[Logits]]:
    """What a session gives for the windows of each input, without batch axis and padding.

    Args:
        session: takes several rows.
        cut: the windows of each input.
        at_once: tokens of a batch, rows times length; one row is a batch however long it is.
        most: tokens that the model takes.
    """
    held, tokens = list[Sequence[Window]](), 0
    for windows in cut:
        held.append(windows)
        tokens += sum(len(window.ids) for window in windows)
        if tokens >= _SLAB * at_once:
            yield from _slab(session, held, at_once, most)
            held, tokens = [], 0
    yield from _slab(session, held, at_once, most)


def _slab(session: Session, cut: Sequence[Sequence[Window]], at_once: int, most: int) -> Iterator[list[Logits]]:
    flat = [window for windows in cut for window in windows]
    found = dict[int, Logits]()
    for rows, tokens in _batches([len(window.ids) for window in flat], at_once, most):
        ids, mask = np.zeros((2, len(rows), tokens), np.int32)
        for row, index in enumerate(rows):
            length = len(flat[index].ids)
            ids[row, :length], mask[row, :length] = flat[index].ids, 1
        together = session.run(ids, mask)
        for row, index in enumerate(rows):
            found[index] = together[row, : len(flat[index].ids)] if together.ndim == 3 else together[row]
    order = iter(range(len(flat)))
    for windows in cut:
        yield [found.pop(next(order)) for _ in windows]


def _batches(lengths: Sequence[int], at_once: int, most: int) -> Iterator[tuple[list[int], int]]:
    """Which to run together, shortest first, and how long to make them."""
    rows, tokens = list[int](), 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = min(-(-lengths[index] // STEP) * STEP, most)
        if rows and (len(rows) + 1) * length > at_once:
            yield rows, tokens
            rows = []
        rows.append(index)
        tokens = length
    if rows:
        yield rows, tokens
