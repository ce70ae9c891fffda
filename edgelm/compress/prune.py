"""Structured pruning: heads, FFN neurons and whole layers are removed, not zeroed.

Only smaller matrices make the engines faster. What is kept is chosen by importance per multiply-accumulate; what is
left is then fitted to the dense model's outputs (``reconstruct``). No gradient step is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgelm.compress.importance import Importance, fisher
from edgelm.compress.reconstruct import reconstruct
from edgelm.errors import RecipeError
from edgelm.model import Encoder, EncoderConfig, linear_macs, parameters
from edgelm.progress import Advance
from edgelm.recipe import Prune

__all__ = ["PruneReport", "prune"]


@dataclass(frozen=True)
class PruneReport:
    """What pruning did.

    Attributes:
        layers: kept, by their index in the dense model.
        heads: kept in each of them.
        ffn: neurons kept in each of them.
        macs: the dense encoder's linear multiply-accumulates a token, divided by the pruned one's.
        parameters: (before, after).
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    macs: float
    parameters: tuple[int, int]


def prune(
    model: Encoder,
    config: Prune,
    rows: Sequence[NDArray[np.int32]],
    gold: NDArray[np.int64] | None,
    *,
    progress: Advance | None = None,
) -> tuple[Encoder, PruneReport]:
    """Prune a copy of a model.

    Args:
        model: the dense encoder; it is not changed.
        config: how far, and on how many of the texts.
        rows: token ids of the calibration texts.
        gold: their classes, if known; see ``importance.fisher``.
        progress: called with the number of texts done since the last call; each of the texts taken counts twice.

    Raises:
        RecipeError: the config asks for what the model does not have, or for nothing.
    """
    layers = _layers(model.config, config)
    taken = np.random.default_rng(config.seed).permutation(len(rows))[: config.samples]
    rows = [rows[i] for i in taken]
    gold = gold[taken] if gold is not None else None
    scores = fisher(model, rows, gold, seed=config.seed, progress=progress)
    scores = Importance(tuple(scores.heads[i] for i in layers), tuple(scores.ffn[i] for i in layers))
    heads, ffn = _kept(model.config, config, scores)
    pruned = _remove(model, layers, heads, ffn)
    reconstruct(model, pruned, layers, rows, progress=progress)
    report = PruneReport(
        layers,
        pruned.config.heads,
        pruned.config.ffn,
        linear_macs(model.config) / max(1, linear_macs(pruned.config)),
        (parameters(model), parameters(pruned)),
    )
    return pruned.eval(), report


def _layers(shape: EncoderConfig, config: Prune) -> tuple[int, ...]:
    """The layers to keep, checked."""
    if config.macs is None and config.heads is None and config.ffn is None and config.layers is None:
        raise RecipeError("prune: expected 'macs', or a shape ('heads', 'ffn', 'layers'); found none of them")
    if config.macs is not None and (config.heads is not None or config.ffn is not None):
        raise RecipeError("prune: 'macs' chooses the widths, so give either 'macs' or 'heads' and 'ffn', not both")
    layers = tuple(range(len(shape.heads))) if config.layers is None else tuple(sorted(set(config.layers)))
    if not layers or layers[-1] >= len(shape.heads):
        raise RecipeError(f"prune.layers: expected indices from 0 to {len(shape.heads) - 1}, found {list(layers)}")
    for name, wanted, have in (("heads", config.heads, shape.heads), ("ffn", config.ffn, shape.ffn)):
        if wanted is not None and wanted > min(have[i] for i in layers):
            raise RecipeError(f"prune.{name}: {wanted} is more than the model has ({min(have)})")
    return layers


def _kept(shape: EncoderConfig, config: Prune, scores: Importance) -> tuple[list[Tensor], list[Tensor]]:
    """Indices to keep, ascending, of the heads and of the neurons of each layer."""
    if config.macs is None:
        heads = [_top(s, config.heads if config.heads is not None else len(s)) for s in scores.heads]
        return heads, [_top(s, config.ffn if config.ffn is not None else len(s)) for s in scores.ffn]
    budget = linear_macs(shape) / config.macs
    counts = _greedy(scores, 4 * shape.dim * shape.head_dim, 2 * shape.dim, budget)
    widths = [_rounded(n, config.multiple_of, len(s)) for n, s in zip(counts[1], scores.ffn, strict=True)]
    kept = [_top(s, n) for s, n in zip(scores.heads, counts[0], strict=True)]
    return kept, [_top(s, n) for s, n in zip(scores.ffn, widths, strict=True)]


def _greedy(scores: Importance, head_macs: int, neuron_macs: int, budget: float) -> tuple[list[int], list[int]]:
    """How many heads and neurons of each layer are among the best by score per MAC that fit into the budget."""
    units = [(float(s) / head_macs, head_macs, 0, i) for i, layer in enumerate(scores.heads) for s in layer]
    units += [(float(s) / neuron_macs, neuron_macs, 1, i) for i, layer in enumerate(scores.ffn) for s in layer]
    counts = ([0] * len(scores.heads), [0] * len(scores.ffn))
    for _, macs, kind, layer in sorted(units, reverse=True):
        if macs <= budget:
            budget -= macs
            counts[kind][layer] += 1
    return counts


def _rounded(width: int, multiple: int, most: int) -> int:
    """The nearest multiple, or all when that is more than there are."""
    return min(most, round(width / multiple) * multiple)


def _top(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` largest, ascending. Ties go to the lower index, so that runs repeat."""
    return torch.argsort(scores, descending=True, stable=True)[:count].sort().values


def _remove(model: Encoder, layers: tuple[int, ...], heads: list[Tensor], ffn: list[Tensor]) -> Encoder:
    """A new encoder with only the kept layers, heads and neurons; shared parts are copied."""
    shape = replace(model.config, heads=tuple(len(k) for k in heads), ffn=tuple(len(k) for k in ffn))
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("layers.")}
    for new, old in enumerate(layers):
        columns = (heads[new][:, None] * shape.head_dim + torch.arange(shape.head_dim)).flatten()
        for name, tensor in model.layers[old].state_dict().items():
            state[f"layers.{new}.{name}"] = _slice(name, tensor, columns, ffn[new])
    pruned = Encoder(shape)
    pruned.load_state_dict({name: state[name] for name in pruned.state_dict()})  # an emptied sublayer keeps its bias
    return pruned


def _slice(name: str, tensor: Tensor, columns: Tensor, neurons: Tensor) -> Tensor:
    """Keep some columns of the attention, or some neurons of the FFN, in one tensor of a layer."""
    if name.startswith(("attention.q.", "attention.k.", "attention.v.")):
        return tensor[columns]
    if name == "attention.out.weight":
        return tensor[:, columns]
    if name.startswith("ffn.up."):
        return tensor[neurons]
    return tensor[:, neurons] if name == "ffn.down.weight" else tensor
