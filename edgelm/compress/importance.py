"""How much the loss depends on each attention head, each FFN neuron and each layer.

Every unit has a multiplicative mask, 1 in the model as it is; a score says what becomes of the loss if the mask goes:

* ``fisher``: the mean over texts of the squared gradient of that text's loss by the mask, the diagonal of the Fisher
  information [Kwon 2022, "A Fast Post-Training Pruning Framework for Transformers", eq. 5];
* ``taylor``: the mean of its absolute value [Michel 2019, "Are Sixteen Heads Really Better than One?", eq. 2];
* ``magnitude``: the squared norm of the weights that the unit is made of, no text needed [Han 2015, "Learning both
  Weights and Connections for Efficient Neural Networks"].

A layer's mask is that of all its units at once, so its gradient is the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edgelm.data import by_length
from edgelm.model import Encoder, Layer
from edgelm.progress import Advance
from edgelm.recipe import Scores

__all__ = ["Importance", "importance"]


@dataclass(frozen=True)
class Importance:
    """Scores; larger matters more. Those of one kind may be compared across layers, those of two kinds per MAC.

    Attributes:
        heads: of each layer, float64, shape (heads,).
        ffn: of each layer, float64, shape (ffn,).
        layers: of each layer as a whole, float64, shape (layers,).
    """

    heads: tuple[Tensor, ...]
    ffn: tuple[Tensor, ...]
    layers: Tensor


def importance(
    model: Encoder,
    by: Scores,
    rows: Sequence[NDArray[np.int32]],
    gold: NDArray[np.int64] | None,
    *,
    seed: int = 0,
    progress: Advance | None = None,
) -> Importance:
    """Score every head, neuron and layer.

    Args:
        model: the encoder; its parameters are not touched.
        by: which score.
        rows: token ids of the calibration texts.
        gold: their classes. Without them, classes are sampled from the model's own distribution: its soft labels
            would give a gradient of exactly zero.
        seed: of that sampling.
        progress: called with the number of texts done since the last call.
    """
    if by == "magnitude":
        if progress:
            progress(len(rows))
        return _magnitude(model)
    generator = torch.Generator().manual_seed(seed)
    layers = len(model.layers)
    units = [torch.zeros(n, dtype=torch.float64) for n in (*model.config.heads, *model.config.ffn)]
    whole = torch.zeros(layers, dtype=torch.float64)
    for batch in by_length(rows, 32):
        input_ids = torch.from_numpy(np.stack([rows[i] for i in batch])).long()
        classes = None if gold is None else torch.from_numpy(gold[batch])
        gradients = _gradients(model, input_ids, classes, generator)
        for total, gradient in zip(units, gradients, strict=True):
            total += _size(gradient, by)
        sums = [gradient.sum(1) for gradient in gradients]
        whole += _size(torch.stack([sums[i] + sums[layers + i] for i in range(layers)], 1), by)
        if progress:
            progress(len(batch))
    means = tuple(total / len(rows) for total in units)
    return Importance(means[:layers], means[layers:], whole / len(rows))


def _size(gradient: Tensor, by: Scores) -> Tensor:
    """The summed size of gradients, shape (texts, units), over the texts."""
    return (gradient.square() if by == "fisher" else gradient.abs()).sum(0)


def _gradients(model: Encoder, input_ids: Tensor, classes: Tensor | None, generator: torch.Generator) -> list[Tensor]:
    """Of each text's own loss by the masks of heads, then of neurons, of each layer: float64, (texts, units)."""
    masks, handles = _masks(model, len(input_ids))
    try:
        logits = model(input_ids, torch.ones_like(input_ids))
    finally:
        for handle in handles:
            handle.remove()
    if classes is None:
        classes = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
    loss = functional.cross_entropy(logits, classes, reduction="sum")  # a sum: each text's gradient is its own
    found = torch.autograd.grad(loss, masks, materialize_grads=True)  # an empty sublayer's mask is not used
    return [gradient.double() for gradient in found]


def _masks(model: Encoder, batch: int) -> tuple[list[Tensor], list[Any]]:
    """Masks of ones, shape (batch, units), multiplied into the inputs of the sublayers' output projections."""
    masks, handles = [], []
    for layer in model.layers:
        mask = torch.ones(batch, layer.attention.heads, requires_grad=True)
        masks.append(mask)
        if layer.attention.heads:
            handles.append(_multiply(layer.attention.out, mask, layer.attention.head_dim))
    for layer in model.layers:
        mask = torch.ones(batch, layer.ffn.width, requires_grad=True)
        masks.append(mask)
        if layer.ffn.width:
            handles.append(_multiply(layer.ffn.down, mask, 1))
    return masks, handles


def _multiply(projection: nn.Module, mask: Tensor, repeat: int) -> Any:
    def hook(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        return (args[0] * mask.repeat_interleave(repeat, 1)[:, None, :],)

    return projection.register_forward_pre_hook(hook)


@torch.no_grad()
def _magnitude(model: Encoder) -> Importance:
    heads, ffn = zip(*(_norms(layer) for layer in model.layers), strict=True)
    return Importance(heads, ffn, torch.stack([h.sum() + f.sum() for h, f in zip(heads, ffn, strict=True)]))


def _norms(layer: Layer) -> tuple[Tensor, Tensor]:
    """Squared norms of a layer's heads and neurons, float64: of all rows and columns that go with the unit."""
    heads, ffn = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    attention, neurons = layer.attention, layer.ffn
    if attention.heads:
        rows = torch.stack([part.weight.double().square().sum(1) for part in (attention.q, attention.k, attention.v)])
        columns = _weight(attention.out).square().sum(0)
        heads = (rows.sum(0) + columns).view(attention.heads, attention.head_dim).sum(1)
    if neurons.width:
        ffn = neurons.up.weight.double().square().sum(1) + _weight(neurons.down).square().sum(0)
    return heads, ffn


def _weight(projection: nn.Module) -> Tensor:
    weight: Tensor = projection.get_parameter("weight").double()
    return weight
