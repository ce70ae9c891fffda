"""Structured pruning: heads, FFN neurons and whole layers are removed, not zeroed.

Only smaller matrices make the engines faster. What is kept is chosen by importance (``widths``, ``budget``); what is
left is then fitted to the dense model's outputs (``reconstruct``). No gradient step is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgelm.compress import widths
from edgelm.compress.importance import Importance, importance
from edgelm.compress.reconstruct import reconstruct
from edgelm.compress.widths import Choose, Widths
from edgelm.errors import RecipeError
from edgelm.model import Encoder, EncoderConfig, linear_macs, parameters
from edgelm.progress import Advance
from edgelm.recipe import Prune

__all__ = ["PruneReport", "Scored", "cut", "planned", "prune", "score"]


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


@dataclass(frozen=True)
class Scored:
    """A model's scores, and the texts that they are of: what any number of prunings can start from.

    Attributes:
        rows: token ids of the calibration texts that were taken.
        scores: of all layers.
        layers: to keep.
        strides: of them; see ``EncoderConfig``.
    """

    rows: list[NDArray[np.int32]]
    scores: Importance
    layers: tuple[int, ...]
    strides: tuple[int, ...]

    def kept(self) -> Importance:
        """The scores of the kept layers alone."""
        heads, ffn = (tuple(part[i] for i in self.layers) for part in (self.scores.heads, self.scores.ffn))
        return Importance(heads, ffn, self.scores.layers[list(self.layers)])


def prune(
    model: Encoder,
    config: Prune,
    rows: Sequence[NDArray[np.int32]],
    gold: NDArray[np.int64] | None,
    *,
    choose: Choose | None = None,
    progress: Advance | None = None,
) -> tuple[Encoder, PruneReport]:
    """Prune a copy of a model.

    Args:
        model: the dense encoder; it is not changed.
        config: how far, and on how many of the texts.
        rows: token ids of the calibration texts.
        gold: their classes, if known; see ``importance``.
        choose: the widths; by ``config.macs`` or ``config.heads`` and ``config.ffn`` if not given.
        progress: called with the number of texts done since the last call; each text taken counts twice.

    Raises:
        RecipeError: the config asks for what the model does not have, or for nothing.
    """
    scored = score(model, config, rows, gold, choose=choose, progress=progress)
    return cut(model, scored, choose or _chosen(model.config, config), progress=progress)


def planned(
    model: Encoder,
    config: Prune,
    rows: Sequence[NDArray[np.int32]],
    gold: NDArray[np.int64] | None,
    *,
    choose: Choose | None = None,
    progress: Advance | None = None,
) -> EncoderConfig:
    """The shape that ``prune`` would leave; nothing is removed. Arguments as there; each text counts once."""
    scored = score(model, config, rows, gold, choose=choose, progress=progress)
    shape = _shape(model.config, scored.layers, scored.strides)
    chosen = (choose or _chosen(model.config, config))(shape, scored.kept())
    return replace(shape, heads=chosen.heads, ffn=chosen.ffn)


def score(
    model: Encoder,
    config: Prune,
    rows: Sequence[NDArray[np.int32]],
    gold: NDArray[np.int64] | None,
    *,
    choose: Choose | None = None,
    progress: Advance | None = None,
) -> Scored:
    """The first half of ``prune``. Arguments and errors as there; each text taken counts once."""
    _check(model.config, config, choose)
    taken = np.random.default_rng(config.seed).permutation(len(rows))[: config.samples]
    rows, gold = [rows[i] for i in taken], gold[taken] if gold is not None else None
    scores = importance(model, config.by, rows, gold, seed=config.seed, progress=progress)
    return Scored(rows, scores, _layers(model.config, config, scores), config.strides or ())


def cut(
    model: Encoder, scored: Scored, choose: Choose, *, progress: Advance | None = None
) -> tuple[Encoder, PruneReport]:
    """The second half of ``prune``: remove what is worth least, and fit what is left; each text counts once."""
    pruned, scores = _kept_layers(model, scored.layers, scored.strides), scored.kept()
    pruned = _remove(pruned, scores, choose(pruned.config, scores))
    reconstruct(model, pruned, scored.layers, scored.rows, progress=progress)
    report = PruneReport(
        scored.layers,
        pruned.config.heads,
        pruned.config.ffn,
        linear_macs(model.config) / max(1, linear_macs(pruned.config)),
        (parameters(model), parameters(pruned)),
    )
    return pruned.eval(), report


def _check(shape: EncoderConfig, config: Prune, choose: Choose | None) -> None:
    """Refuse a config that contradicts itself, asks for nothing, or for more than there is."""
    fixed = (config.heads, config.ffn)
    if choose is None and config.macs is None and fixed == (None, None) and config.layers is None:
        raise RecipeError(
            "prune: expected 'macs', or a shape ('heads', 'ffn', 'layers'), or a [budget]; found none of them"
        )
    if choose is not None and (config.macs is not None or fixed != (None, None)):
        raise RecipeError("prune: the budget chooses the widths: leave out 'macs', 'heads' and 'ffn'")
    if config.macs is not None and fixed != (None, None):
        raise RecipeError("prune: 'macs' chooses the widths, so give either 'macs' or 'heads' and 'ffn', not both")
    for name, wanted, have in (("heads", config.heads, shape.heads), ("ffn", config.ffn, shape.ffn)):
        if wanted is not None and wanted > min(have):
            raise RecipeError(f"prune.{name}: {wanted} is more than the model has ({min(have)})")
    named = config.layers if config.layers is not None else len(shape.heads)
    layers = named if isinstance(named, int) else len(set(named))
    if config.strides and (len(config.strides) != layers or config.strides[-1] != 1):
        raise RecipeError(
            f"prune.strides: expected one for each of the {layers} layers that are kept, the last one 1, "
            f"found {list(config.strides)}"
        )


def _layers(shape: EncoderConfig, config: Prune, scores: Importance) -> tuple[int, ...]:
    """The layers to keep: those that are named, or the best of them if it is said how many."""
    have = len(shape.heads)
    if config.layers is None:
        return tuple(range(have))
    if isinstance(config.layers, int):
        best = _top(scores.layers, config.layers)
        layers = tuple(int(i) for i in best)
    else:
        layers = tuple(sorted(set(config.layers)))
    if not layers or layers[-1] >= have or (isinstance(config.layers, int) and config.layers > have):
        raise RecipeError(
            f"prune.layers: expected indices from 0 to {have - 1}, or a number of layers to keep, "
            f"found {config.layers if isinstance(config.layers, int) else list(layers)}"
        )
    return layers


def _chosen(shape: EncoderConfig, config: Prune) -> Choose:
    if config.macs is None:
        return widths.uniform(config.heads, config.ffn)
    return widths.for_macs(linear_macs(shape) / config.macs, config.multiple_of or 1)


def _top(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` largest, ascending. Ties go to the lower index, so that runs repeat."""
    return torch.argsort(scores, descending=True, stable=True)[:count].sort().values


def _shape(config: EncoderConfig, layers: tuple[int, ...], strides: tuple[int, ...]) -> EncoderConfig:
    """With these layers alone."""
    heads, ffn = (tuple(widths[i] for i in layers) for widths in (config.heads, config.ffn))
    return replace(config, heads=heads, ffn=ffn, strides=strides)


def _kept_layers(model: Encoder, layers: tuple[int, ...], strides: tuple[int, ...]) -> Encoder:
    """A copy with these layers alone."""
    shape = _shape(model.config, layers, strides)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("layers.")}
    for new, old in enumerate(layers):
        state |= {f"layers.{new}.{name}": tensor for name, tensor in model.layers[old].state_dict().items()}
    return _filled(shape, state)


def _remove(model: Encoder, scores: Importance, wanted: Widths) -> Encoder:
    """A copy with only the best heads and neurons of each layer."""
    shape = replace(model.config, heads=wanted.heads, ffn=wanted.ffn)
    state = model.state_dict()
    for index, layer in enumerate(model.layers):
        heads = _top(scores.heads[index], wanted.heads[index])
        columns = (heads[:, None] * shape.head_dim + torch.arange(shape.head_dim)).flatten()
        neurons = _top(scores.ffn[index], wanted.ffn[index])
        for name, tensor in layer.state_dict().items():
            state[f"layers.{index}.{name}"] = _slice(name, tensor, columns, neurons)
    return _filled(shape, state)


def _filled(shape: EncoderConfig, state: dict[str, Tensor]) -> Encoder:
    """An encoder of this shape with these weights; a sublayer without units keeps its bias alone."""
    made = Encoder(shape)
    made.load_state_dict({name: state[name] for name in made.state_dict()})
    return made.eval()


def _slice(name: str, tensor: Tensor, columns: Tensor, neurons: Tensor) -> Tensor:
    """Keep some columns of the attention, or some neurons of the FFN, in one tensor of a layer."""
    if name.startswith(("attention.q.", "attention.k.", "attention.v.")):
        return tensor[columns]
    if name == "attention.out.weight":
        return tensor[:, columns]
    if name.startswith("ffn.up."):
        return tensor[neurons]
    return tensor[:, neurons] if name == "ffn.down.weight" else tensor
