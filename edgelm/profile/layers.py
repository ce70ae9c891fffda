"""Operators by the layers of the model, and how far each layer is from what the machine can do.

Engines fuse and rename operators, but they run them in order, and each sublayer ends with its LayerNorm: the first one
ends the embedding, the others end attention 0, ffn 0, attention 1, … in turn; what follows the last is the head.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgelm.errors import DataError
from edgelm.profile.ops import Tensor, Timed
from edgelm.runs import Op, Peak, Run

__all__ = ["Layer", "Work", "assigned", "by_layer", "layer_names", "least"]

_PRODUCTS = ("MatMul", "Gemm")  # and what is fused from them: FusedMatMul, MatMulInteger, DynamicQuantizeMatMul, …
_PARTS = ("Gather", "Slice", "Shape")  # they read no more than they write
_BYTES = {"float16": 2, "double": 8, "int64": 8, "uint8": 1, "int8": 1, "bool": 1}  # others have 4


class Work(Protocol):
    """What an operator has to do; an ``Op`` tells it."""

    @property
    def macs(self) -> int:
        """Multiply-adds."""

    @property
    def bytes(self) -> int:
        """Read and written, if nothing were in a cache."""

    @property
    def int8(self) -> bool:
        """Whether the products are of 8-bit integers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer of the model.

    Attributes:
        name: ``embedding``, ``attention 0``, …
        us: of a request, in microseconds.
        share: of all layers' time, between 0 and 1.
        macs: multiply-adds of a request.
        bytes: what its operators read and write, if nothing were in a cache.
        roof: what it reaches of the roof over it, between 0 and 1, or more where caches help; None without products
            or without a known peak.
        bound: what that roof is: ``arithmetic`` or ``memory``.
    """

    name: str
    us: float
    share: float
    macs: int
    bytes: int
    roof: float | None
    bound: str


def assigned(timed: Sequence[Timed], layers: int) -> tuple[Op, ...]:
    """Say of each operator which layer it belongs to, and what it has to do.

    Args:
        timed: in the order in which they ran.
        layers: of the model.

    Raises:
        DataError: there are not as many LayerNorms as the model has sublayers.
    """
    norms = sum(_ends(one) for one in timed)
    if norms not in (1 + 2 * layers, 2 + 2 * layers):  # the head of a masked language model has one too
        raise DataError(
            f"per-layer: expected {1 + 2 * layers} LayerNorms of {layers} layers in what ran, found {norms}: "
            "its operators cannot be told apart"
        )
    names = layer_names(layers)
    found, name = list[Op](), next(names)
    for one in timed:
        found.append(_op(one, name))
        if _ends(one) and name != "head":
            name = next(names)
    return tuple(found)


def by_layer(run: Run, peak: Peak | None) -> tuple[Layer, ...]:
    """The layers of a run in the order of the model; none if its operators were not asked for."""
    groups: dict[str, list[Op]] = {}
    for op in run.ops:
        groups.setdefault(op.layer, []).append(op)
    total = sum(op.us for op in run.ops) or 1.0
    return tuple(_layer(name, ops, total, peak) for name, ops in groups.items())


def least(work: Iterable[Work], peak: Peak) -> tuple[float, float]:
    """The time that the arithmetic of a layer's products takes at least, and that of their bytes, in seconds.

    The longer one is its roof: min(peak, intensity times bandwidth) [Williams 2009] as a time.
    """
    products = [one for one in work if one.macs]
    arithmetic = sum(one.macs / (peak.int8_macs if one.int8 else peak.fp32_macs) for one in products)
    return arithmetic, sum(one.bytes for one in products) / peak.bytes


def _layer(name: str, ops: Sequence[Op], total: float, peak: Peak | None) -> Layer:
    us, macs, moved = sum(op.us for op in ops), sum(op.macs for op in ops), sum(op.bytes for op in ops)
    roof, bound = _roof(ops, us, peak)
    return Layer(name=name, us=us, share=us / total, macs=macs, bytes=moved, roof=roof, bound=bound)


def _roof(ops: Sequence[Op], us: float, peak: Peak | None) -> tuple[float | None, str]:
    """What is reached of the roof, and what that is."""
    if peak is None or not us or not any(op.macs for op in ops):
        return None, ""
    arithmetic, memory = least(ops, peak)
    return max(arithmetic, memory) / (us * 1e-6), "arithmetic" if arithmetic >= memory else "memory"


def layer_names(layers: int) -> Iterator[str]:
    """The layers of a model of so many, in the order in which they run: embedding, attention 0, ffn 0, …, head."""
    yield "embedding"
    for index in range(layers):
        yield f"attention {index}"
        yield f"ffn {index}"
    yield "head"


def _ends(one: Timed) -> bool:
    return "LayerNorm" in one.kind


def _op(one: Timed, layer: str) -> Op:
    int8 = _is_product(one) and ("Integer" in one.kind or "Quantize" in one.kind)
    moved = _bytes(one, int8)
    return Op(layer=layer, name=one.name, kind=one.kind, us=one.us, macs=_macs(one), bytes=moved, int8=int8)


def _is_product(one: Timed) -> bool:
    shapes = [shape for _, shape in one.inputs]
    return any(word in one.kind for word in _PRODUCTS) and bool(one.outputs and shapes and shapes[0])


def _bytes(one: Timed, int8: bool) -> int:
    """What has to be read and written: of a table the rows that are looked up, of a product the weights as well."""
    out = sum(map(_size, one.outputs))
    if one.kind in _PARTS:
        return 2 * out
    moved = out + sum(map(_size, one.inputs))
    if _is_product(one):
        k, n = one.inputs[0][1][-1], one.outputs[0][1][-1]
        if not any(shape in ((k, n), (n, k)) for _, shape in one.inputs):
            moved += k * n * (1 if int8 else 4)  # packed by the engine, and so not told
    return moved


def _size(tensor: Tensor) -> int:
    kind, shape = tensor
    return _BYTES.get(kind, 4) * math.prod(shape)


def _macs(one: Timed) -> int:
    """Of a product: each output is a sum over the last axis of the first input. Of attention: QKᵀ, and that by V."""
    shapes = [shape for _, shape in one.inputs]
    if _is_product(one):
        return math.prod(one.outputs[0][1]) * shapes[0][-1]
    if one.kind == "Attention" and len(shapes) >= 2:
        (batch, rows, width), (_, tokens, _) = shapes[0][:3], shapes[1][:3]
        return 2 * batch * rows * tokens * width
    return 0
