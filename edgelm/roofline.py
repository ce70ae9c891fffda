"""How long a request will take, before anything is run: the roofline of a model's shape, and what engines make of it.

The roofline [Williams 2009] knows two times of a layer: that of its multiply-adds at the peak of the machine, and that
of its bytes. Where they overlap the longer one is the roof. The engines here overlap them so little that their sum
tells more (docs/trust.md). What else a request does is in neither, so it takes some times as long. How many was
measured for each engine and precision, over models of several sizes and lengths (``make bench-prediction``): a
prediction is the sum by the peaks of a device times the median of them, and its range is from the least to the most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from edgelm.manifest import Device, Manifest, Precision, Variant
from edgelm.profile.detect import peak_of
from edgelm.profile.layers import least
from edgelm.runs import Peak

if TYPE_CHECKING:  # a shape alone needs no torch
    from edgelm.model import EncoderConfig

__all__ = ["BASIS", "LENGTHS", "TIMES", "Expected", "Prediction", "Product", "Times", "ideal_ms", "predict", "work"]

LENGTHS = (16, 32, 128)
"""Tokens that are predicted: those that were measured."""

_FLOAT = 4  # bytes of an activation, in every precision: what is quantized is quantized as it runs


@dataclass(frozen=True, slots=True)
class Times:
    """How many times as long as ``ideal_ms`` a request took.

    Attributes:
        median: of what was measured.
        least: of it.
        most: of it.
        n: models, lengths and numbers of threads.
    """

    median: float
    least: float
    most: float
    n: int

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Times:
        """Of what was measured, with three digits."""
        median, low, high = (float(f"{one:.3g}") for one in (np.median(ratios), min(ratios), max(ratios)))
        return cls(median, low, high, len(ratios))


TIMES: dict[tuple[str, Precision], Times] = {
    ("onnxruntime", "fp32"): Times(1.09, 0.865, 1.47, 42),
    ("onnxruntime", "int8-dynamic"): Times(1.23, 1.08, 2.31, 42),
    ("litert", "fp32"): Times(1.1, 0.807, 1.28, 42),
    ("litert", "int8-dynamic"): Times(1.68, 1.48, 2.3, 42),
}
"""By engine and precision; from benchmarks/prediction.json, which ``make bench-prediction`` writes."""

BASIS = (
    "A prediction: the device's own peaks, times what 7 models took of those of an AMD EPYC (2 cores, x86_64), at 3 "
    "lengths with 1 and 2 threads, one request right after the other. From and to: the least and the most of these 42."
)
"""What ``TIMES`` come from, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of a variant at one length.

    Attributes:
        engine: of the variant.
        precision: of the variant.
        tokens: of a request.
        p50_ms: its median latency, in milliseconds.
        low_ms: if it came as close to the ideal as the best of what was measured.
        high_ms: and as far from it as the worst.
    """

    engine: str
    precision: Precision
    tokens: int
    p50_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What is expected on a device.

    Attributes:
        device: its name.
        threads: that it uses.
        basis: what the figures come from.
        expected: of each variant that can be told of, at each length.
        missing: of what nothing is told, and why: one sentence each.
    """

    device: str
    threads: int
    basis: str
    expected: tuple[Expected, ...]
    missing: tuple[str, ...]


def predict(config: EncoderConfig, manifest: Manifest, device: Device) -> Prediction:
    """The latency of each variant on a device, from the shape of the model and the peaks of the device.

    Args:
        config: of the module that the variants were exported from.
        manifest: of the bundle.
        device: that it was built for.
    """
    peak, found, missing = peak_of(device), list[Expected](), list[str]()
    if isinstance(peak, tuple):
        lacking = " and ".join([", ".join(peak[:-1]), peak[-1]] if peak[1:] else peak)
        missing.append(
            f"its profile has no figure of {lacking}: 'edgelm devices detect --out FILE.toml' measures them there"
        )
    elif not config.heads:
        missing.append("the layers of a model of another framework are not known")
    else:
        for variant in manifest.variants:
            times = TIMES.get((variant.engine, variant.precision))
            if times is None:
                missing.append(f"how far {variant.engine} {variant.precision} stays from the roofline was not measured")
            else:
                lengths = [tokens for tokens in LENGTHS if tokens <= manifest.max_tokens]
                found += [_expected(config, variant, tokens, peak, times) for tokens in lengths]
    return Prediction(
        device=device.name, threads=device.threads, basis=BASIS, expected=tuple(found), missing=tuple(missing)
    )


def _expected(config: EncoderConfig, variant: Variant, tokens: int, peak: Peak, times: Times) -> Expected:
    computed = min((length for length in variant.lengths if length >= tokens), default=tokens)  # padded to a signature
    ideal = ideal_ms(config, variant.precision, computed, peak)
    return Expected(
        engine=variant.engine,
        precision=variant.precision,
        tokens=tokens,
        p50_ms=ideal * times.median,
        low_ms=ideal * times.least,
        high_ms=ideal * times.most,
    )


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product of a request.

    Attributes:
        macs: multiply-adds.
        bytes: of both sides and the result.
        int8: whether it is of 8-bit integers.
    """

    macs: int
    bytes: int
    int8: bool


def ideal_ms(config: EncoderConfig, precision: Precision, tokens: int, peak: Peak) -> float:
    """The time of a request's multiply-adds and of its bytes, one after the other, in milliseconds."""
    return 1e3 * sum(sum(least(layer, peak)) for layer in work(config, precision, tokens))


def work(config: EncoderConfig, precision: Precision, tokens: int) -> Iterator[tuple[Product, ...]]:
    """The products of each sublayer that has any, and of the head, of a request of one text.

    Args:
        config: of the encoder.
        precision: of the artifact, ``fp32`` or ``int8-dynamic``: of the latter, products of weights are of integers.
        tokens: that are computed, padding included.
    """
    int8 = precision == "int8-dynamic"
    last, first_row = len(config.heads) - 1, _reads_first_row(config)
    apart = pairwise(config.spacing())
    for index, (heads, ffn, (read, made)) in enumerate(zip(config.heads, config.ffn, apart, strict=True)):
        read, rows = math.ceil(tokens / read), 1 if first_row and index == last else math.ceil(tokens / made)
        width = heads * config.head_dim
        if heads:
            queries, keys = _linear(rows, config.dim, width, int8), _linear(read, config.dim, width, int8)
            mixed = _mixed(rows, read, config.head_dim, heads)
            yield queries, keys, keys, mixed, mixed, _linear(rows, width, config.dim, int8)
        if ffn:
            yield _linear(rows, config.dim, ffn, int8), _linear(rows, ffn, config.dim, int8)
    yield tuple(_linear(rows, config.dim, n, int8) for rows, n in _head(config, tokens))


def _reads_first_row(config: EncoderConfig) -> bool:
    vectors = config.task == "feature-extraction" and config.pooling == "cls"
    return config.task == "text-classification" or vectors


def _head(config: EncoderConfig, tokens: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of each product of the head."""
    match config.task:
        case "text-classification":
            yield from ((1, config.dim), (1, len(config.labels)))
        case "token-classification":
            yield tokens, len(config.labels)
        case "question-answering":
            yield tokens, 2
        case "fill-mask":
            yield from ((tokens, config.dim), (tokens, config.vocab_size))
        case "feature-extraction":
            pass


def _linear(rows: int, k: int, n: int, int8: bool) -> Product:
    """``x @ weights``, weights of shape (k, n)."""
    return Product(rows * k * n, k * n * (1 if int8 else _FLOAT) + rows * (k + n) * _FLOAT, int8)


def _mixed(rows: int, tokens: int, head_dim: int, heads: int) -> Product:
    """Of all heads ``Q Kᵀ``, or that by ``V``: of floats on every engine."""
    return Product(
        rows * tokens * head_dim * heads, _FLOAT * heads * (rows * head_dim + tokens * head_dim + rows * tokens), False
    )
