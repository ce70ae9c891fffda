"""How much the loss depends on each attention head and each FFN neuron.

Diagonal Fisher information of multiplicative masks [Kwon 2022, "A Fast Post-Training Pruning Framework for
Transformers", eq. 5]: the mean over texts of the squared gradient of that text's loss by the mask, at mask = 1.
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
from edgelm.model import Encoder
from edgelm.progress import Advance

__all__ = ["Importance", "fisher"]


@dataclass(frozen=True)
class Importance:
    """Scores; larger matters more.

    Attributes:
        heads: of each layer, float64, shape (heads,).
        ffn: of each layer, float64, shape (ffn,).
    """

    heads: tuple[Tensor, ...]
    ffn: tuple[Tensor, ...]


def fisher(
    model: Encoder,
    rows: Sequence[NDArray[np.int32]],
    gold: NDArray[np.int64] | None,
    *,
    seed: int = 0,
    progress: Advance | None = None,
) -> Importance:
    """Score every head and neuron.

    Args:
        model: the encoder; its parameters are not touched.
        rows: token ids of the calibration texts.
        gold: their classes. Without them, classes are sampled from the model's own distribution: its soft labels
            would give a gradient of exactly zero.
        seed: of that sampling.
        progress: called with the number of texts done since the last call.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = [torch.zeros(n, dtype=torch.float64) for n in (*model.config.heads, *model.config.ffn)]
    for batch in by_length(rows, 32):
        input_ids = torch.from_numpy(np.stack([rows[i] for i in batch])).long()
        masks, handles = _masks(model, len(batch))
        try:
            logits = model(input_ids, torch.ones_like(input_ids))
        finally:
            for handle in handles:
                handle.remove()
        classes = _sampled(logits, generator) if gold is None else torch.from_numpy(gold[batch])
        loss = functional.cross_entropy(logits, classes, reduction="sum")  # a sum: each text's gradient is its own
        gradients = torch.autograd.grad(loss, masks, materialize_grads=True)  # an empty sublayer's mask is not used
        for total, gradient in zip(sums, gradients, strict=True):
            total += gradient.double().square().sum(0)
        if progress:
            progress(len(batch))
    layers = len(model.config.heads)
    means = tuple(total / len(rows) for total in sums)
    return Importance(means[:layers], means[layers:])


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


def _sampled(logits: Tensor, generator: torch.Generator) -> Tensor:
    probabilities = logits.detach().softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
