"""The widths that lose least importance within a latency and a size: a multiple-choice knapsack, solved exactly.

Each sublayer takes one of its widths; its units go in the order of their scores, so a width loses the sum of the scores
of the rest. The sum over sublayers is minimized by dynamic programming over both budgets at once [Frantar 2022, "SPDY:
Accurate Pruning with Speedup Guarantees", section 3.2; Kurtic 2023, "ZipLM", section 3.2].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgelm.compress.importance import Importance
from edgelm.compress.latency import Table, sublayers
from edgelm.compress.widths import Choose, Widths
from edgelm.errors import RecipeError
from edgelm.model import EncoderConfig

__all__ = ["Limits", "Options", "search", "within"]

STEPS = 2000
"""Into which a single budget is divided; two are divided into ``STEPS_OF_TWO`` each. A cost is rounded up to a step."""
STEPS_OF_TWO = 600


@dataclass(frozen=True)
class Limits:
    """What an encoder may cost; None is no limit.

    Attributes:
        ms: latency, in milliseconds.
        bytes: size of the artifact.
        tokens: length that ``ms`` is for.
        positions: rows of position embeddings in the artifact.
        vocab: rows of word embeddings that the encoder will have.
    """

    ms: float | None
    bytes: float | None
    tokens: int
    positions: int
    vocab: int


@dataclass(frozen=True)
class Options:
    """The widths one sublayer may have, ascending, and what each loses and costs; every array of shape (options,).

    Attributes:
        units: heads or neurons.
        loss: importance removed.
        costs: against each budget in turn.
    """

    units: NDArray[np.int64]
    loss: NDArray[np.float64]
    costs: tuple[NDArray[np.float64], ...]


def within(limits: Limits, table: Table, multiple: int) -> Choose:
    """The widths that lose least importance and cost no more than the limits.

    Args:
        limits: at least one of ``ms`` and ``bytes``.
        table: of the device and engine.
        multiple: FFN widths are multiples of this, or all that there are.

    Raises:
        RecipeError: when called, if even an encoder without heads and neurons costs more; it says which limit binds.
    """

    def choose(shape: EncoderConfig, scores: Importance) -> Widths:
        _check(limits, table, shape)
        options = _options(limits, table, scores, shape, multiple)
        rest = []
        if limits.ms is not None:
            rest.append(limits.ms - table.fixed_ms(limits.tokens))
        if limits.bytes is not None:
            rest.append(limits.bytes - table.fixed_bytes(limits.vocab, limits.positions))
        units = [int(o.units[pick]) for o, pick in zip(options, search(options, rest), strict=True)]
        return Widths(tuple(units[0::2]), tuple(units[1::2]))

    return choose


def _check(limits: Limits, table: Table, shape: EncoderConfig) -> None:
    """Refuse limits that this many layers cannot keep, whatever is removed from them.

    Raises:
        RecipeError: it names the limit that binds, the nearest feasible point, and what to do.
    """
    least = EncoderConfig(
        **{**vars(shape), "vocab_size": limits.vocab, "heads": (0,) * len(shape.heads), "ffn": (0,) * len(shape.ffn)}
    )
    layers, of = len(shape.heads), f"{table.subject.engine} {table.subject.precision}"
    ms, size = table.predict_ms(least, limits.tokens), table.predict_bytes(least, limits.positions)
    if limits.ms is not None and ms > limits.ms:
        raise RecipeError(
            f"budget.p50_ms: {limits.ms:g} ms at {limits.tokens} tokens cannot be met: {layers} layers take {ms:.3g} "
            f"ms without any head or neuron ({of}, {table.subject.threads} threads, {table.machine.cpu}): allow more, "
            "ask for fewer tokens, or keep fewer layers (prune.layers)"
        )
    if limits.bytes is not None and size > limits.bytes:
        words = limits.vocab * table.fixed.row_bytes
        raise RecipeError(
            f"budget.bytes: {limits.bytes:.0f} cannot be met: {of} has {size:.0f} bytes without any head or neuron, "
            f"{words:.0f} of them the word embeddings of {limits.vocab} pieces: trim the vocabulary ([vocab]), or "
            "allow more"
        )


def search(options: Sequence[Options], budgets: Sequence[float]) -> list[int]:
    """Choose an option of each sublayer: least loss in sum, costs in sum within every budget.

    Exact but for rounding: each cost beyond the sublayer's least is rounded up to a step of the budget.

    Args:
        options: of each sublayer; the least costs in sum are within the budgets.
        budgets: one or two.

    Returns:
        The index chosen of each. Of equal losses, the narrower width.
    """
    steps = STEPS if len(budgets) == 1 else STEPS_OF_TWO
    bins = _bins(options, budgets, steps)
    best = np.zeros((steps + 1,) * len(budgets))
    picks = []
    for one, costs in zip(options, bins, strict=True):
        new = np.full_like(best, np.inf)
        pick = np.zeros(best.shape, np.int16)
        for index, loss in enumerate(one.loss):
            if (costs[:, index] > steps).any():
                continue
            here = tuple(slice(cost, None) for cost in costs[:, index])
            before = best[tuple(slice(steps + 1 - cost) for cost in costs[:, index])] + loss
            better = before < new[here]
            np.copyto(new[here], before, where=better)
            np.copyto(pick[here], index, where=better, casting="unsafe")
        best = new
        picks.append(pick)
    chosen, at = list[int](), np.full(len(budgets), steps)
    for pick, costs in zip(reversed(picks), reversed(bins), strict=True):
        chosen.append(int(pick[tuple(at)]))
        at = at - costs[:, chosen[-1]]
    return chosen[::-1]


def _bins(options: Sequence[Options], budgets: Sequence[float], steps: int) -> list[NDArray[np.int64]]:
    """Costs beyond the least of each sublayer in steps of what the budgets leave, int64, shape (budgets, options)."""
    found = []
    for axis, budget in enumerate(budgets):
        unit = max(0.0, budget - sum(float(o.costs[axis].min()) for o in options)) / steps
        extra = [o.costs[axis] - o.costs[axis].min() for o in options]
        found.append(
            [
                np.ceil(cost / unit - 1e-9).clip(0, steps + 1).astype(np.int64)
                if unit > 0
                else np.where(cost > 0, steps + 1, 0)
                for cost in extra
            ]
        )
    return [np.stack(parts) for parts in zip(*found, strict=True)]


def _options(limits: Limits, table: Table, scores: Importance, shape: EncoderConfig, multiple: int) -> list[Options]:
    """Of each sublayer in turn: attention and FFN of the first layer, then of the second, and so on."""
    units = [s for pair in zip(scores.heads, scores.ffn, strict=True) for s in pair]
    found = []
    for sublayer, one in zip(sublayers(shape), units, strict=True):
        step = 1 if sublayer.kind.endswith("attention") else multiple
        widths = np.unique([*range(0, sublayer.units, step), sublayer.units])
        costs = []
        if limits.ms is not None:
            costs.append(table.sublayer_ms(sublayer, widths, limits.tokens))
        if limits.bytes is not None:
            costs.append(table.bytes(sublayer.kind, widths))
        found.append(Options(widths, _lost(one)[widths], tuple(costs)))
    return found


def _lost(scores: Tensor) -> NDArray[np.float64]:
    """What is lost when only the best n units are kept, for n from 0 to all: float64, shape (units + 1,)."""
    kept = np.cumsum([0.0, *np.sort(scores.numpy())[::-1]])
    lost: NDArray[np.float64] = np.maximum(0.0, kept[-1] - kept)
    return lost
