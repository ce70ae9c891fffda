"""What static quantization must know before it runs: the range of what each linear layer reads, from real texts.

Ranges: of the percentiles in ``TAILS``, those with the least mean squared error of the rounded values. Padding never
decides one, since rows are run without any.

Sensitivity: rounding what all layers read may cost more than ``TOLERANCE``. Then each layer is rounded alone, and those
that do most harm are left in float, one after the other, until the rest together is within it.
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
from edgelm.model import Encoder
from edgelm.runtimes import Ids

__all__ = ["LEAST", "TOLERANCE", "Calibration", "Range", "calibrate"]

LEAST = 16
"""Fewest different texts that ranges can be taken from."""

TOLERANCE = 0.01
"""Largest error of the outputs, as a share of their variance, that rounding activations may cause."""

TAILS = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""Shares of the values, on either side, that may be cut off."""

_TEXTS, _PROBES, _BATCH = 256, 64, 32
_VECTORS = 1024
"""Rows of activations that are kept of each layer."""


@dataclass(frozen=True)
class Range:
    """An interval that holds 0, in 255 steps."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Width of a step; 1 where the interval is empty."""
        return (self.high - self.low) / 255 or 1.0

    @property
    def zero_point(self) -> int:
        """The step of 0, counted from ``low``: 0 to 255."""
        return round(-self.low / self.scale)


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
    texts = _spread(list({row.tobytes(): row for row in rows}.values()), _TEXTS)
    if len(texts) < LEAST:
        raise DataError(
            f"int8-static is calibrated on texts like those it will see: expected {LEAST} different ones or more, "
            f"found {len(texts)}"
        )
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    reads = {name: _range(*seen) for name, seen in _observed(model, layers, texts).items()}
    probes = _spread(texts, _PROBES)
    truth = _outputs(model, probes)
    variance = float(truth.var())
    if not variance:
        raise DataError(
            "int8-static is calibrated on texts that differ: the model says the same of all that were given"
        )

    def error(names: Sequence[str]) -> float:
        with _rounding({name: layers[name] for name in names}, reads):
            return float((_outputs(model, probes) - truth).square().mean()) / variance

    floating, found = _floating(list(layers), error)
    return Calibration(reads, floating, found, error(list(layers)) if floating else found)


def _floating(layers: Sequence[str], error: Callable[[Sequence[str]], float]) -> tuple[tuple[str, ...], float]:
    """The fewest layers, worst first, without which the error is within the tolerance; and that error."""
    found, worst = error(layers), list[str]()
    if found > TOLERANCE:
        alone = {name: error([name]) for name in layers}
        worst = sorted(layers, key=lambda name: -alone[name])
    for count in range(1, len(worst) + 1):
        found = error(worst[count:])
        if found <= TOLERANCE:
            return tuple(worst[:count]), found
    return (), found


def _spread(rows: Sequence[Ids], most: int) -> list[Ids]:
    """So many of them, from all over the file, which may be sorted by label."""
    return [rows[index] for index in np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


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


def _range(values: NDArray[np.float32], low: float, high: float) -> Range:
    """The range, of those with tails cut off and the whole one, that rounds the values with the least squared error."""
    cuts = np.quantile(values, [*TAILS, *(1 - tail for tail in TAILS)]).reshape(2, -1)
    ends = [(low, high), *zip(*cuts.tolist(), strict=True)]
    candidates = [Range(min(0.0, least), max(0.0, most)) for least, most in ends]
    return min(
        candidates, key=lambda span: float(np.square(_rounded(torch.from_numpy(values), span).numpy() - values).mean())
    )


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
