"""What the module's linear layers read, from real texts: the ranges of ONNX's static quantization, and what it spares.

Rows are run without padding, so that it decides no range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgelm.data import by_length
from edgelm.errors import DataError
from edgelm.exporters.ranges import Range, best_range, different, sensitive, spread
from edgelm.model import Encoder
from edgelm.runtimes import Ids

__all__ = ["Calibration", "calibrate"]

_TEXTS, _PROBES, _BATCH = 256, 64, 32
_VECTORS = 1024
"""Rows of activations that are kept of each layer."""


@dataclass(frozen=True)
class Calibration:
    """What was found on the texts.

    Attributes:
        reads: what each linear layer reads, by its name.
        floating: layers that are to stay in float, most sensitive first.
        error: of the outputs with the others rounded, as a share of their variance.
        error_of_all: the same with every layer rounded.
    """

    reads: Mapping[str, Range]
    floating: tuple[str, ...]
    error: float
    error_of_all: float

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left in float and why, if anything."""
        if not self.floating:
            return ()
        return (
            f"left in float, since rounding what they read does most harm: {', '.join(self.floating)} (error "
            f"{self.error:.2g} of the outputs' variance, {self.error_of_all:.2g} without)",
        )


def calibrate(model: Encoder, rows: Sequence[Ids]) -> Calibration:
    """Run texts through the module and look at what its linear layers read.

    Args:
        model: the module, in evaluation mode.
        rows: token ids of real texts, without padding, int32, shape (tokens,) each; 256 of them are used.

    Raises:
        DataError: fewer than ``LEAST`` are different, or the module says the same of all.
    """
    texts = spread(different(rows), _TEXTS)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    reads = {name: best_range(*seen) for name, seen in _observed(model, layers, texts).items()}
    probes = spread(texts, _PROBES)
    truth = _outputs(model, probes)
    variance = float(truth.var())
    if not variance:
        raise DataError(
            "int8-static is calibrated on texts that differ: the model says the same of all that were given"
        )

    def error(names: Sequence[str]) -> float:
        with _rounding({name: layers[name] for name in names}, reads):
            return float((_outputs(model, probes) - truth).square().mean()) / variance

    return Calibration(reads, *sensitive(list(layers), error))


def _outputs(model: Encoder, rows: Sequence[Ids]) -> Tensor:
    """The model's outputs of all rows, one after the other, flat."""
    found = []
    with torch.no_grad():
        for indices in by_length(rows, _BATCH):
            ids = torch.from_numpy(np.stack([rows[index] for index in indices]))
            found.append(model(ids, torch.ones_like(ids)).flatten())
    return torch.cat(found)


Seen = tuple[NDArray[np.float32], float, float]
"""A sample of the values, and the least and the greatest of all of them."""


def _observed(model: Encoder, layers: Mapping[str, nn.Linear], rows: Sequence[Ids]) -> dict[str, Seen]:
    kept: dict[str, list[Tensor]] = {name: [] for name in layers}
    ends: dict[str, list[tuple[float, float]]] = {name: [] for name in layers}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            vectors = inputs[0].flatten(0, -2)
            share = -(-_VECTORS * len(inputs[0]) // len(rows))
            kept[name].append(vectors[:: -(-len(vectors) // share)].clone())
            ends[name].append((float(vectors.min()), float(vectors.max())))

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        _outputs(model, rows)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: (torch.cat(kept[name]).numpy(), min(low for low, _ in ends[name]), max(high for _, high in ends[name]))
        for name in layers
    }


def _rounded(values: Tensor, span: Range) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(values, span.scale, span.zero_point, 0, 255)


@contextmanager
def _rounding(layers: Mapping[str, nn.Linear], reads: Mapping[str, Range]) -> Iterator[None]:
    """Within it, these layers read what an unsigned byte can say of their inputs."""

    def rounder(span: Range) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
        return lambda module, inputs: _rounded(inputs[0], span)

    handles = [layer.register_forward_pre_hook(rounder(reads[name])) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
