"""How many heads and neurons each layer keeps: one shape for all, or the best by importance for a number of MACs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgelm.compress.importance import Importance
from edgelm.model import EncoderConfig

__all__ = ["Choose", "Widths", "for_macs", "uniform"]


@dataclass(frozen=True)
class Widths:
    """What each layer keeps.

    Attributes:
        heads: of each layer.
        ffn: neurons of each layer.
    """

    heads: tuple[int, ...]
    ffn: tuple[int, ...]


Choose = Callable[[EncoderConfig, Importance], Widths]
"""Widths for a model of this shape, with these scores of its units; both of the layers that are kept alone."""


def uniform(heads: int | None, ffn: int | None) -> Choose:
    """One shape for every layer; None leaves a width as it is."""

    def choose(shape: EncoderConfig, scores: Importance) -> Widths:
        del scores
        layers = len(shape.heads)
        return Widths(
            shape.heads if heads is None else (heads,) * layers, shape.ffn if ffn is None else (ffn,) * layers
        )

    return choose


def for_macs(macs: float, multiple: int) -> Choose:
    """The units that score best per multiply-accumulate, as many as fit [Kwon 2022, section 4.1].

    Args:
        macs: that the encoder's linear layers may keep, a token.
        multiple: neurons of a layer are rounded to the nearest multiple of this.
    """

    def choose(shape: EncoderConfig, scores: Importance) -> Widths:
        rows = [*pairwise(shape.spacing())]
        head = [2 * shape.dim * shape.head_dim * (1 / read + 1 / made) for read, made in rows]
        heads, ffn = _greedy(scores, head, [2 * shape.dim / made for _, made in rows], macs)
        ffn = [_rounded(n, multiple, len(s)) for n, s in zip(ffn, scores.ffn, strict=True)]
        return Widths(tuple(heads), tuple(ffn))

    return choose


def _rounded(width: int, multiple: int, most: int) -> int:
    """The nearest multiple, or all when that is more than there are."""
    return min(most, round(width / multiple) * multiple)


def _greedy(
    scores: Importance, head_macs: Sequence[float], neuron_macs: Sequence[float], budget: float
) -> tuple[list[int], list[int]]:
    """How many heads and neurons of each layer are among the best by score per MAC that fit into the budget."""
    units = [(float(s) / head_macs[i], head_macs[i], 0, i) for i, layer in enumerate(scores.heads) for s in layer]
    units += [(float(s) / neuron_macs[i], neuron_macs[i], 1, i) for i, layer in enumerate(scores.ffn) for s in layer]
    counts = ([0] * len(scores.heads), [0] * len(scores.ffn))
    for _, macs, kind, layer in sorted(units, reverse=True):
        if macs <= budget:
            budget -= macs
            counts[kind][layer] += 1
    return counts
