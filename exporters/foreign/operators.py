"""Operators that tf2onnx 1.17 does not know, or writes badly, as handlers: (graph, node, name, arguments).

A handler changes the node that it is given, and adds others before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

__all__ = ["HANDLERS"]

_numbers = count()


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Erfc(x) = 1 - Erf(x): TensorFlow computes the exact GELU by it."""
    erf = ctx.make_node("Erf", [node.input[0]]).output[0]
    node.type = "Sub"
    ctx.replace_inputs(node, [_constant(ctx, name, 1.0), erf])


def _gelu(ctx: Any, node: Any, name: str, args: Any) -> None:
    """TFLite's GELU(x) = x * (1 + Erf(x / sqrt 2)) / 2, or with Tanh in place of Erf [Hendrycks 2016, eq. 2]."""
    x, tanh = node.input[0], bool(node.get_attr_value("approximate"))
    inner = ctx.make_node("Mul", [x, _constant(ctx, name, math.sqrt(2 / math.pi if tanh else 0.5))]).output[0]
    if tanh:
        cubic = ctx.make_node("Mul", [ctx.make_node("Mul", [x, x]).output[0], _constant(ctx, name, 0.044715)])
        factor = ctx.make_node("Add", [cubic.output[0], _constant(ctx, name, 1.0)])
        inner = ctx.make_node("Mul", [inner, factor.output[0]]).output[0]
    curve = ctx.make_node("Tanh" if tanh else "Erf", [inner]).output[0]
    gate = ctx.make_node("Add", [curve, _constant(ctx, name, 1.0)]).output[0]
    half = ctx.make_node("Mul", [x, _constant(ctx, name, 0.5)]).output[0]
    del node.attr["approximate"]
    node.type = "Mul"
    ctx.replace_inputs(node, [half, gate])


def _embedding_lookup(ctx: Any, node: Any, name: str, args: Any) -> None:
    """TFLite's EMBEDDING_LOOKUP(ids, table) is a Gather of rows."""
    ids, rows = node.input
    node.type = "Gather"
    node.set_attr("axis", 0)
    ctx.replace_inputs(node, [rows, ids])


def _einsum(ctx: Any, node: Any, name: str, args: Any) -> None:
    """A product with a constant matrix as MatMul, which quantizes and is faster: ``abc,cde->abde`` as ``abc,cx->abx``.

    Every other Einsum stays one.
    """
    equation = node.get_attr_value("equation").decode().lower().replace(" ", "")
    del node.attr["N"]
    node.set_attr("equation", equation)
    left, right, out = equation.replace("->", ",").split(",") if equation.count(",") == 1 else ("", "", "")
    kept = next((n for n in range(len(left)) if right.startswith(left[n:]) and out.startswith(left[:n])), 0)
    wide = right[len(left) - kept :]
    if not kept or out != left[:kept] + wide or not node.inputs[1].is_const() or "..." in equation:
        return
    weight = node.inputs[1].get_tensor_value(as_list=False)
    widths = list(weight.shape[len(left) - kept :])
    matrix = ctx.make_const(f"{name}_matrix", weight.reshape(-1, math.prod(widths))).output[0]
    x = node.input[0]
    if len(left) - kept > 1:
        x = ctx.make_node("Reshape", [x, _shape(ctx, name, [0] * kept + [-1])]).output[0]
    del node.attr["equation"]
    if len(widths) == 1:
        node.type = "MatMul"
        ctx.replace_inputs(node, [x, matrix])
        return
    product = ctx.make_node("MatMul", [x, matrix]).output[0]
    node.type = "Reshape"
    ctx.replace_inputs(node, [product, _shape(ctx, name, [0] * kept + widths)])


def _constant(ctx: Any, name: str, value: float) -> str:
    found: str = ctx.make_const(f"{name}_{next(_numbers)}", np.array(value, np.float32)).output[0]
    return found


def _shape(ctx: Any, name: str, dims: list[int]) -> str:
    found: str = ctx.make_const(f"{name}_{next(_numbers)}", np.array(dims, np.int64)).output[0]
    return found


HANDLERS: dict[str, tuple[Callable[..., None], list[str]]] = {
    "Einsum": (_einsum, []),
    "Erfc": (_erfc, []),
    "TFL_EMBEDDING_LOOKUP": (_embedding_lookup, []),
    "TFL_GELU": (_gelu, []),
}
"""By the operator's name in TensorFlow, or in TFLite after ``TFL_``."""
