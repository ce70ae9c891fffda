"""Which heads and neurons can go when those that stay may take over: the optimal brain surgeon, for whole units.

A unit's score is what its removal adds to the loss after the output projection of its sublayer was solved again for
the units that are left, in the order in which the surgeon takes them out. Sums of scores are so the cost of taking out
that many: unlike scores of single units, they know of two units that say the same.

The loss is taken as quadratic, with a curvature that is a Kronecker product for each output projection: the second
moment A of what it reads and that of the loss's gradient by what it writes, G [K-FAC, Martens 2015]. Taking out the
columns S of the weight W then costs half of trace(W_S' G W_S inv([inv(A)]_SS)) [LLM Surgeon, van der Ouderaa 2023,
eq. 11; ZipLM, Kurtic 2023, eq. 4, is the same with G = 1].
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

__all__ = ["Curvature", "curvature", "removal_costs"]

_DAMPING = 1e-4  # of the second moments, in units of the mean of their diagonal
_AT_ONCE = 8  # neurons that are taken out between two updates


@dataclass(frozen=True)
class Curvature:
    """Of one output projection: second moments, float64.

    Attributes:
        inputs: A, of what it reads, each token weighted by its squared gradient, shape (in, in).
        gradients: G, of the loss of a text by what it writes at a token, summed over tokens and averaged over texts,
            shape (out, out).
    """

    inputs: Tensor
    gradients: Tensor


def curvature(
    model: Encoder,
    rows: Sequence[NDArray[np.int32]],
    gold: NDArray[np.int64] | None,
    *,
    seed: int = 0,
    progress: Advance | None = None,
) -> tuple[list[Curvature | None], list[Curvature | None]]:
    """The curvature of every output projection, of the attentions and of the FFNs; None of an emptied sublayer.

    Args:
        model: the encoder; its parameters are not touched.
        rows: token ids of the calibration texts.
        gold: their classes; sampled from the model's own distribution without them.
        seed: of that sampling.
        progress: called with the number of texts done since the last call.
    """
    generator = torch.Generator().manual_seed(seed)
    projections = [layer.attention.out for layer in model.layers] + [layer.ffn.down for layer in model.layers]
    sums = {
        p: [torch.zeros(n, n, dtype=torch.float64) for n in (p.in_features, p.out_features)] + [torch.zeros(1)]
        for p in projections
        if isinstance(p, nn.Linear)
    }
    for batch in by_length(rows, 32):
        input_ids = torch.from_numpy(np.stack([rows[i] for i in batch])).long()
        taken = _taken(model, input_ids, None if gold is None else torch.from_numpy(gold[batch]), [*sums], generator)
        for projection, (read, gradient) in taken.items():
            total = sums[projection]
            size = gradient.square().sum(1)  # tokens whose output the loss does not depend on do not count
            total[0] += ((read * size[:, None]).T @ read).double()
            total[1] += (gradient.T @ gradient).double()
            total[2] += size.sum()
        if progress:
            progress(len(batch))
    found = [
        Curvature(sums[p][0] / sums[p][2].clamp(min=1e-30), sums[p][1] / len(rows)) if p in sums else None
        for p in projections
    ]
    return found[: len(model.layers)], found[len(model.layers) :]


def _taken(
    model: Encoder, input_ids: Tensor, classes: Tensor | None, projections: list[nn.Linear], generator: torch.Generator
) -> dict[nn.Linear, tuple[Tensor, Tensor]]:
    """What each projection reads, and the gradient of each text's loss by what it writes, one row for each token."""
    read: dict[nn.Linear, Tensor] = {}
    written: dict[nn.Linear, Tensor] = {}

    def look(module: Any, args: tuple[Tensor], output: Tensor) -> None:
        read[module], written[module] = args[0].detach().flatten(0, 1), output

    handles = [projection.register_forward_hook(look) for projection in projections]
    embedded = model.embeddings.word.weight.requires_grad  # gradients by activations need one parameter that has them
    try:
        model.embeddings.word.weight.requires_grad_(True)
        logits = model(input_ids, torch.ones_like(input_ids))
    finally:
        model.embeddings.word.weight.requires_grad_(embedded)
        for handle in handles:
            handle.remove()
    if classes is None:
        classes = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
    loss = functional.cross_entropy(logits, classes, reduction="sum")
    gradients = torch.autograd.grad(loss, [written[p] for p in projections])
    return {p: (read[p], g.flatten(0, 1)) for p, g in zip(projections, gradients, strict=True)}


@torch.no_grad()
def removal_costs(weight: Tensor, found: Curvature, width: int) -> Tensor:
    """What each unit's removal costs, in the order in which the surgeon takes them out.

    Args:
        weight: of the output projection, shape (out, units * width).
        found: its curvature.
        width: columns of a unit: ``head_dim`` for heads, 1 for neurons.

    Returns:
        Float64, shape (units,). The unit that goes last has the largest cost.
    """
    units = weight.shape[1] // width
    w, left = weight.double().clone(), torch.ones(units, dtype=torch.bool)
    damping = _DAMPING * found.inputs.diagonal().mean().clamp(min=1e-12)
    inverse = torch.linalg.inv(found.inputs + damping * torch.eye(len(found.inputs), dtype=torch.float64))
    costs, highest = torch.zeros(units, dtype=torch.float64), 0.0
    while left.any():
        price = _prices(w, inverse, found.gradients, units, width).masked_fill(~left, torch.inf)
        count = min(_AT_ONCE if width == 1 else 1, int(left.sum()))
        gone = price.argsort(stable=True)[:count]
        for unit in gone.tolist():
            highest = max(highest * (1 + 1e-9), float(price[unit]))  # so that what goes later never seems cheaper
            costs[unit] = highest
        left[gone] = False
        columns = (gone[:, None] * width + torch.arange(width)).flatten()
        block = torch.linalg.inv(inverse[columns][:, columns])
        w -= w[:, columns] @ block @ inverse[columns]
        inverse -= inverse[:, columns] @ block @ inverse[columns]
        w[:, columns] = 0.0
        inverse[columns, columns] = 1.0  # they are out; this keeps the blocks below invertible
    return costs


def _prices(w: Tensor, inverse: Tensor, gradients: Tensor, units: int, width: int) -> Tensor:
    """Half of trace(W_S' G W_S inv([inv(A)]_SS)) for each unit, float64, shape (units,)."""
    if width == 1:
        price: Tensor = 0.5 * (w * (gradients @ w)).sum(0) / inverse.diagonal().clamp(min=1e-30)
        return price
    columns = w.T.view(units, width, -1)
    own = columns @ gradients @ columns.transpose(1, 2)
    blocks = torch.stack([inverse[i * width : (i + 1) * width, i * width : (i + 1) * width] for i in range(units)])
    traces: Tensor = torch.linalg.solve(blocks, own).diagonal(dim1=1, dim2=2).sum(1)
    return 0.5 * traces
