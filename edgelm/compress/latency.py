"""What a layer of a width costs on one device and engine: a table, measured once, kept as data.

The latency of an encoder is taken as the sum of a fixed part (embeddings, head) and the cost of each sublayer, linear
between the widths that were measured; a sublayer without units has no operators, so below the narrowest one the line
goes on, and only nothing costs nothing [ZipLM, Kurtic 2023, "Inference-Aware Structured Pruning of Language Models",
section 3.2]. ``tabulate`` measures it. The table also says what a width costs in bytes of the artifact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edgelm.errors import RecipeError
from edgelm.manifest import Machine, Precision
from edgelm.model import EncoderConfig
from edgelm.runtimes.cache import cache_folder, key, recall, remember
from edgelm.schema import Strict, decode

__all__ = [
    "Fixed",
    "Kind",
    "Point",
    "Subject",
    "Sublayer",
    "Table",
    "cached",
    "keep",
    "position_rows",
    "read",
    "sublayers",
]

Kind = Literal["attention", "ffn", "last_attention", "last_ffn"]
"""A sublayer. Those of the last layer are kinds of their own: it computes the [CLS] row alone."""

Positive = Annotated[int, Meta(ge=1)]


_ORDINARY: tuple[Kind, Kind] = ("attention", "ffn")
_LAST: tuple[Kind, Kind] = ("last_attention", "last_ffn")


class Sublayer(NamedTuple):
    """A sublayer of an encoder.

    Attributes:
        kind: what it is.
        units: heads or neurons.
        read: how many tokens apart the rows are that it reads.
        made: the same of those that it computes.
    """

    kind: Kind
    units: int
    read: int
    made: int


class Subject(Strict, frozen=True, kw_only=True):
    """What a table is about, besides the machine.

    Attributes:
        engine: that ran the artifacts.
        precision: of the artifacts.
        threads: the engine was given.
        dim: hidden width.
        head_dim: width of one head.
        heads: most heads of a layer.
        ffn: most FFN neurons of a layer.
        labels: classes.
        lengths: tokens, ascending.
    """

    engine: str
    precision: Precision
    threads: Positive
    dim: Positive
    head_dim: Positive
    heads: Positive
    ffn: Positive
    labels: Positive
    lengths: Annotated[tuple[Positive, ...], Meta(min_length=1)]


class Point(Strict, frozen=True, kw_only=True):
    """Cost of one sublayer of one width.

    Attributes:
        units: heads, or FFN neurons.
        ms: latency at each of the lengths.
        bytes: of the artifact.
    """

    units: Annotated[int, Meta(ge=0)]
    ms: tuple[float, ...]
    bytes: float


class Fixed(Strict, frozen=True, kw_only=True):
    """What no pruning removes: embeddings, head, the graph itself.

    Attributes:
        ms: latency at each of the lengths.
        bytes: of the artifact with ``vocab`` rows of word embeddings and ``positions`` rows of position embeddings.
        vocab: see ``bytes``.
        positions: see ``bytes``.
        row_bytes: of one more row of the word embeddings. One of the position embeddings has 4 a column (float32).
    """

    ms: tuple[float, ...]
    bytes: float
    vocab: Positive
    positions: Positive
    row_bytes: float


class Table(Strict, frozen=True, kw_only=True):
    """Costs on one machine; points by ascending units, the first of 0.

    Attributes:
        schema: the version of this format.
        machine: where it was measured.
        subject: what was measured.
        fixed: the part without layers.
        attention: of an ordinary layer, by heads.
        ffn: of an ordinary layer, by neurons.
        last_attention: of the last layer, by heads.
        last_ffn: of the last layer, by neurons.
    """

    schema: Literal["edgelm.latency/1"]
    machine: Machine
    subject: Subject
    fixed: Fixed
    attention: Annotated[tuple[Point, ...], Meta(min_length=2)]
    ffn: Annotated[tuple[Point, ...], Meta(min_length=2)]
    last_attention: Annotated[tuple[Point, ...], Meta(min_length=2)]
    last_ffn: Annotated[tuple[Point, ...], Meta(min_length=2)]

    def ms(self, kind: Kind, units: NDArray[np.int64], tokens: int) -> NDArray[np.float64]:
        """Latency of a sublayer, by width: milliseconds, the shape of ``units``.

        It never falls with the width: one that was faster than a narrower one counts as slow as that.
        """
        points: tuple[Point, ...] = getattr(self, kind)
        found = np.array([self._at(point.ms, tokens) for point in points])
        return _between(points, np.maximum.accumulate(found), units)

    def bytes(self, kind: Kind, units: NDArray[np.int64]) -> NDArray[np.float64]:
        """Bytes of a sublayer in the artifact, by width."""
        points: tuple[Point, ...] = getattr(self, kind)
        return _between(points, np.array([point.bytes for point in points]), units)

    def fixed_ms(self, tokens: int) -> float:
        """Latency of what no pruning removes, in milliseconds."""
        return self._at(self.fixed.ms, tokens)

    def fixed_bytes(self, vocab: int, positions: int) -> float:
        """Bytes of what no pruning removes, with so many rows of word and position embeddings."""
        more = (vocab - self.fixed.vocab) * self.fixed.row_bytes
        return self.fixed.bytes + more + (positions - self.fixed.positions) * 4 * self.subject.dim

    def sublayer_ms(self, one: Sublayer, units: NDArray[np.int64], tokens: int) -> NDArray[np.float64]:
        """The same in an encoder: half of what it does is for the rows that it reads, half for those it computes."""
        halves = [self.ms(one.kind, units, math.ceil(tokens / apart)) for apart in (one.read, one.made)]
        found: NDArray[np.float64] = np.mean(halves, 0)
        return found

    def predict_ms(self, shape: EncoderConfig, tokens: int) -> float:
        """Latency of an encoder of this shape, in milliseconds."""
        return self.fixed_ms(tokens) + sum(
            float(self.sublayer_ms(one, np.array([one.units]), tokens)[0]) for one in sublayers(shape)
        )

    def predict_bytes(self, shape: EncoderConfig, positions: int) -> float:
        """Size of its artifact, with so many rows of position embeddings; see ``position_rows``."""
        return self.fixed_bytes(shape.vocab_size, positions) + sum(
            float(self.bytes(one.kind, np.array([one.units]))[0]) for one in sublayers(shape)
        )

    def _at(self, ms: tuple[float, ...], tokens: int) -> float:
        """At a length; shorter than all, it is on the line through the two shortest, but not below 0."""
        lengths = self.subject.lengths
        if tokens < lengths[0] and len(lengths) > 1:
            slope = (ms[1] - ms[0]) / (lengths[1] - lengths[0])
            return max(0.0, ms[0] + slope * (tokens - lengths[0]))
        return float(np.interp(tokens, lengths, ms))


def _between(points: Sequence[Point], values: NDArray[np.float64], units: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values at other widths: on the line through the two around, or the two narrowest, but never below nothing's."""
    widths = np.array([point.units for point in points])
    if len(points) == 2:
        return np.interp(units, widths, values)
    right = np.searchsorted(widths, units).clip(2, len(widths) - 1)
    slope = (values[right] - values[right - 1]) / (widths[right] - widths[right - 1])
    found: NDArray[np.float64] = np.maximum(values[0], values[right] + slope * (units - widths[right]))
    found[units == 0] = values[0]
    return found


def sublayers(shape: EncoderConfig) -> list[Sublayer]:
    """The sublayers of an encoder, in the order they run."""
    last = len(shape.heads) - 1
    rows = pairwise(shape.spacing())
    found: list[Sublayer] = []
    for index, (heads, ffn, (read, made)) in enumerate(zip(shape.heads, shape.ffn, rows, strict=True)):
        attention, neurons = _LAST if index == last else _ORDINARY
        found += (Sublayer(attention, heads, read, made), Sublayer(neurons, ffn, made, made))
    return found


def position_rows(engine: str, lengths: Sequence[int]) -> int:
    """Rows of position embeddings in an artifact: TFLite has those of every signature, ONNX those of the longest."""
    return sum(set(lengths)) if engine == "litert" else max(lengths)


def read(path: Path) -> Table:
    """A table from a file, of this machine or of another.

    Raises:
        RecipeError: it cannot be read, or is not a table.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise RecipeError(f"{path}: no such latency table can be read ({exc.strerror})") from exc
    return decode(raw, Table, source=str(path), error=RecipeError)


def cached(subject: Subject) -> Table | None:
    """What was measured of this subject, on this machine, with these versions of the engines; None if nothing was."""
    return recall(_name(subject), Table)


def keep(table: Table) -> Path:
    """Remember a table in the cache folder; a folder that cannot be written costs no measurement, only the memory.

    Returns:
        The file, which another machine can be given.
    """
    name = _name(table.subject)
    remember(name, table)
    return cache_folder() / f"{name}.json"


def _name(subject: Subject) -> str:
    """By what the table holds for: the machine, the versions of the engines, and the subject."""
    return f"latency-{subject.engine}-{key(msgspec.json.encode(subject).decode())}"
