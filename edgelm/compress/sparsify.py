"""Unstructured magnitude pruning: zeros for a smaller download. Nothing gets faster, and nothing smaller in memory.

The engines multiply by zeros as by any other number. But a zero of float32 is the code 0 of int8 too, and a variant
that is mostly zeros deflates well; a bundle that is not deflated gains nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgelm.model import Encoder
from edgelm.recipe import Sparsity

__all__ = ["SparsityReport", "hold", "sparsify"]


@dataclass(frozen=True)
class SparsityReport:
    """What was set to zero.

    Attributes:
        weights: of the matrices that were pruned.
        zeros: of those.
    """

    weights: int
    zeros: int


@torch.no_grad()
def sparsify(model: Encoder, config: Sparsity) -> tuple[Encoder, SparsityReport]:
    """Set the smallest weights of a copy of a model to zero, the same share of each matrix of the layers [Han 2015].

    Args:
        model: the encoder; it is not changed.
        config: which share.
    """
    sparse = copy.deepcopy(model)
    embeddings = config.share if config.embeddings is None else config.embeddings
    for weight in _matrices(sparse):
        share = embeddings if weight is sparse.embeddings.word.weight else config.share
        flat = weight.view(-1)
        count = round(share * flat.numel())
        flat[flat.abs().argsort(stable=True)[:count]] = 0  # ties go to the lower index, so that runs repeat
    weights = sum(weight.numel() for weight in _matrices(sparse))
    zeros = sum(int((weight == 0).sum()) for weight in _matrices(sparse))
    return sparse, SparsityReport(weights, zeros)


def hold(model: Encoder) -> Callable[[], None]:
    """What keeps the weights of a model zero that are zero now, to be called after each step of its training.

    All of them from the start, not by a share that grows as it trains [Zhu & Gupta 2017]: that came out no better on
    CLINC150 (0.7 of each matrix), and so the share is right whenever training ends, and the masks need not be saved.
    """
    masks = [(weight, weight == 0) for weight in _matrices(model)]

    @torch.no_grad()
    def after_step() -> None:
        for weight, mask in masks:
            weight.masked_fill_(mask, 0)

    return after_step


def _matrices(model: Encoder) -> Iterator[Tensor]:
    """Where the bytes are: the word embeddings and the layers' matrices. The head is a hundredth of them."""
    yield model.embeddings.word.weight
    for layer in model.layers:
        yield from (module.weight for module in layer.modules() if isinstance(module, nn.Linear))
