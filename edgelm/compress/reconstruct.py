"""After removal, fit what is left to the dense model's outputs by least squares: no gradient, a few seconds.

Layer by layer, on the pruned model's own inputs, the output projection of each sublayer is solved so that the
residual stream equals the dense one [Kwon 2022, section 3.3 tunes masks so; here weights and bias are solved].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgelm.data import by_length
from edgelm.model import Bias, Encoder, Layer, attention_bias
from edgelm.progress import Advance

__all__ = ["reconstruct"]

RIDGE = 1e-4
"""Pull towards the weights as they were, in units of the mean of the Gram matrix's diagonal."""


EXACT = 1e-10
"""Squared residual, relative to the squared target, that is put down to the rounding of float32."""


@torch.no_grad()
def reconstruct(
    dense: Encoder,
    pruned: Encoder,
    layers: tuple[int, ...],
    rows: Sequence[NDArray[np.int32]],
    *,
    progress: Advance | None = None,
) -> None:
    """Fit a pruned encoder's output projections, in place.

    Args:
        dense: what it was made from.
        pruned: the same with heads, neurons or layers removed.
        layers: for each pruned layer, its index in the dense model. A kept layer also takes over for the dropped
            ones after it: it is fitted to the output of the last of them and gets that one's LayerNorm.
        rows: token ids of the calibration texts.
        progress: called with the number of texts done since the last call; every text counts once.
    """
    ids = [torch.from_numpy(np.stack([rows[i] for i in batch])).long() for batch in by_length(rows, 64)]
    biases = [attention_bias(torch.ones_like(batch)) for batch in ids]
    truth = [dense.embeddings(batch) for batch in ids]
    ours = [pruned.embeddings(batch) for batch in ids]
    masks = biases
    share = len(rows) / len(layers)
    for new, old in enumerate(layers):
        following = layers[new + 1] if new + 1 < len(layers) else len(dense.layers)
        layer = pruned.layers[new]
        attention_sums, truth = _through(dense.layers[old], truth, biases)
        ffn_sums = [s.ffn for s in attention_sums]
        for index in range(old + 1, following):
            skipped, truth = _through(dense.layers[index], truth, biases)
            ffn_sums = [s.ffn for s in skipped]
        layer.ffn_norm.load_state_dict(dense.layers[following - 1].ffn_norm.state_dict())
        stride, apart = pruned.config.stride(new), pruned.config.spacing()[new + 1]
        wanted = [s.attention[:, ::apart] for s in attention_sums], [s[:, ::apart] for s in ffn_sums]
        ours = _fit_layer(layer, [*zip([x[:, ::stride] for x in ours], ours, masks, strict=True)], *wanted)
        masks = [mask[..., ::stride] for mask in masks]
        if progress:
            progress(round((new + 1) * share) - round(new * share))


@dataclass(frozen=True)
class _Sums:
    """The residual stream before each LayerNorm of a layer, float, shape (batch, tokens, dim)."""

    attention: Tensor
    ffn: Tensor


def _through(layer: Layer, xs: list[Tensor], biases: list[Tensor]) -> tuple[list[_Sums], list[Tensor]]:
    """Run every batch through a dense layer."""
    sums, outs = [], []
    for x, bias in zip(xs, biases, strict=True):
        attention = x + layer.attention(x, x, bias)
        h = layer.attention_norm(attention)
        ffn = h + layer.ffn(h)
        sums.append(_Sums(attention, ffn))
        outs.append(layer.ffn_norm(ffn))
    return sums, outs


def _fit_layer(
    layer: Layer, given: list[tuple[Tensor, Tensor, Tensor]], attention_sums: list[Tensor], ffn_sums: list[Tensor]
) -> list[Tensor]:
    """Fit both sublayers to the dense sums and return the layer's outputs.

    Args:
        layer: of the pruned encoder.
        given: of each batch the rows to compute, the rows to read, and the mask of these.
        attention_sums: what the rows should be before the attention's LayerNorm.
        ffn_sums: the same before that of the FFN.
    """
    mixed = [layer.attention.mix(*one) if layer.attention.heads else None for one in given]
    _fit(layer.attention.out, mixed, [t - queries for t, (queries, _, _) in zip(attention_sums, given, strict=True)])
    hs = [layer.attention_norm(one[0] + layer.attention(*one)) for one in given]
    neurons = [layer.ffn.neurons(h) if layer.ffn.width else None for h in hs]
    _fit(layer.ffn.down, neurons, [t - h for t, h in zip(ffn_sums, hs, strict=True)])
    return [layer.ffn_norm(h + layer.ffn(h)) for h in hs]


def _fit(projection: nn.Linear | Bias, inputs: list[Tensor | None], targets: list[Tensor]) -> None:
    """Solve weight and bias of ``inputs @ weight.T + bias = targets``, in float64 on centred data."""
    y = torch.cat([t.flatten(0, 1) for t in targets]).double()
    y_mean = y.mean(0)
    if not isinstance(projection, nn.Linear):  # nothing is left of this sublayer but its bias
        projection.bias.copy_(y_mean)
        return
    a = torch.cat([t.flatten(0, 1) for t in inputs if t is not None]).double()
    if _fits(projection, a, y):
        return
    a_mean = a.mean(0)
    a -= a_mean
    gram = a.T @ a
    ridge = RIDGE * gram.diagonal().mean().clamp(min=1e-12)
    weight = projection.weight.double()
    right = a.T @ (y - y_mean) + ridge * weight.T
    solved = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=torch.float64), right).T
    projection.weight.copy_(solved)
    projection.bias.copy_(y_mean - solved @ a_mean)


def _fits(projection: nn.Linear, a: Tensor, y: Tensor) -> bool:
    """Whether it gives its targets as it is, but for rounding: what was removed did nothing, so nothing is solved."""
    left = y - a @ projection.weight.double().T - projection.bias.double()
    return float(left.square().mean()) <= EXACT * float(y.square().mean())
