"""The fastest model that keeps its accuracy: candidates are pruned and scored by bisection over latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgelm.compress.distill import Dev
from edgelm.compress.prune import PruneReport, cut, score
from edgelm.compress.target import Target
from edgelm.exporters.parity import reference
from edgelm.model import Encoder, parameters
from edgelm.progress import Advance
from edgelm.recipe import Prune
from edgelm.tasks import accuracy

__all__ = ["TRIALS", "fastest", "lost"]

TRIALS = 5
"""Candidates; each halves the interval that the latency is known to lie in."""


def fastest(
    model: Encoder,
    config: Prune,
    rows: Sequence[NDArray[np.int32]],
    gold: NDArray[np.int64] | None,
    dev: Dev,
    target: Target,
    points: float,
    *,
    progress: Advance | None = None,
) -> tuple[Encoder, PruneReport]:
    """Prune as far as ``points`` allow, by bisection over the latency; nothing is trained, so training adds to it.

    Args:
        model: the dense encoder; it is not changed.
        config: how to prune.
        rows: token ids of the calibration texts.
        gold: their classes, if known.
        dev: held-out texts with classes.
        target: predicts latencies.
        points: percentage points of accuracy that may be lost.
        progress: called with the number of texts done since the last call; each text taken counts ``1 + TRIALS`` times.

    Returns:
        The fastest that was found; the model as it is if all of them lose too much.
    """
    nothing = tuple(0 for _ in model.config.heads)
    low = target.ms(replace(model.config, heads=nothing, ffn=nothing))
    high = target.ms(model.config)
    every = tuple(range(len(model.layers)))
    size = parameters(model)
    best = model, PruneReport(every, model.config.heads, model.config.ffn, 1.0, (size, size))
    scored = score(model, config, rows, gold, choose=target.choose(config.multiple_of or 1, high), progress=progress)
    for _ in range(TRIALS):
        ms = (low + high) / 2
        tried = cut(model, scored, target.choose(config.multiple_of or 1, ms), progress=progress)
        if lost(model, tried[0], dev) <= points + 1e-9:
            best, high = tried, ms
        else:
            low = ms
    return best


def lost(before: Encoder, after: Encoder, dev: Dev) -> float:
    """Percentage points of accuracy that one model has less than another on the same token ids."""
    first, second = (accuracy(reference(one, dev.rows), dev.gold).value for one in (before, after))
    return 100 * (first - second)
