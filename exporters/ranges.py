"""Ranges of static quantization, and what must not be rounded: what both formats choose alike.

Ranges: of the percentiles in ``TAILS``, those with the least mean squared error of the rounded values. Padding never
decides one: what belongs to it is left out.

Sensitivity: rounding all there is may cost more than a tolerance. Then each part is rounded alone, and those that do
most harm are left as they are, one after the other, until the rest together is within it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DataError
from edgelm.runtimes import Ids

__all__ = ["LEAST", "TOLERANCE", "Range", "best_range", "different", "sensitive", "spread"]

LEAST = 16
"""Fewest different texts that ranges can be taken from."""

TOLERANCE = 0.01
"""Largest error of the outputs, as a share of their variance, that rounding activations may cause."""

TAILS = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""Shares of the values, on either side, that may be cut off."""


@dataclass(frozen=True)
class Range:
    """An interval that holds 0, in 255 steps."""

    low: float
    high: float

    @classmethod
    def of(cls, low: float, high: float) -> Range:
        """The smallest with both ends."""
        return cls(min(0.0, low), max(0.0, high))

    @property
    def scale(self) -> float:
        """Width of a step; 1 where the interval is empty."""
        return (self.high - self.low) / 255 or 1.0

    @property
    def zero_point(self) -> int:
        """The step of 0, counted from ``low``: 0 to 255."""
        return round(-self.low / self.scale)

    def rounded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The nearest values that a byte can say."""
        codes = np.clip(np.rint(values / np.float32(self.scale)) + self.zero_point, 0, 255) - self.zero_point
        found: NDArray[np.float32] = (codes * self.scale).astype(np.float32)
        return found


def different(rows: Sequence[Ids]) -> list[Ids]:
    """The rows without repetitions.

    Raises:
        DataError: they are fewer than ``LEAST``.
    """
    found = list({row.tobytes(): row for row in rows}.values())
    if len(found) < LEAST:
        raise DataError(
            f"int8-static is calibrated on texts like those it will see: expected {LEAST} different ones or more, "
            f"found {len(found)}"
        )
    return found


def spread(rows: Sequence[Ids], most: int) -> list[Ids]:
    """So many of them, from all over the file, which may be sorted by label."""
    return [rows[index] for index in np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]


def best_range(values: NDArray[np.float32], low: float, high: float) -> Range:
    """The range, of those with tails cut off and the whole one, that rounds the values with the least squared error.

    Args:
        values: a sample.
        low: least of all values.
        high: greatest of all values.
    """
    cuts = np.quantile(values, [*TAILS, *(1 - tail for tail in TAILS)]).reshape(2, -1)
    ends = [(low, high), *zip(*cuts.tolist(), strict=True)]
    candidates = [Range.of(least, most) for least, most in ends]
    return min(candidates, key=lambda span: float(np.square(span.rounded(values) - values).mean()))


def sensitive(
    parts: Sequence[str], error: Callable[[Sequence[str]], float], tolerance: float = TOLERANCE
) -> tuple[tuple[str, ...], float, float]:
    """The fewest parts, worst first, without which the error is within the tolerance; that error, and the one of all.

    Args:
        parts: names of what can be rounded.
        error: of the outputs with these parts rounded, as a share of their variance; 0 with none.
        tolerance: the largest that is allowed.
    """
    of_all = found = error(parts)
    spared = 0
    if of_all > tolerance:
        alone = {name: error([name]) for name in parts}
        parts = sorted(parts, key=lambda name: -alone[name])
    while found > tolerance and spared < len(parts):
        spared += 1
        found = error(parts[spared:])
    return tuple(parts[:spared]), found, of_all
