"""ONNX models of one matrix product, written by hand: the run side has no onnx package.

The fields are those of onnx.proto3; the encoding is that of protocol buffers: a key for each field, numbers as varints,
everything else with its length before it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["model"]

_IR_VERSION, _OPSET = 10, 21
_VARINT, _BYTES = 0, 2
_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6
_TYPES = {"MatMul": (_FLOAT, _FLOAT, _FLOAT), "MatMulInteger": (_UINT8, _INT8, _INT32)}


def model(op: Literal["MatMul", "MatMulInteger"], rows: int, weights: NDArray[np.generic]) -> bytes:
    """``y = op(x, weights)``, with x of shape (rows, k) as the input and y of shape (rows, n) as the output.

    Args:
        op: ``MatMul`` of float32, or ``MatMulInteger`` of uint8 by int8 to int32.
        rows: of x.
        weights: shape (k, n), float32 or int8.

    Returns:
        An ONNX model.
    """
    left, right, out = _TYPES[op]
    k, n = weights.shape
    tensor = _numbers(1, k, n) + _number(2, right) + _text(8, "w") + _field(9, np.ascontiguousarray(weights).tobytes())
    node = _text(1, "x") + _text(1, "w") + _text(2, "y") + _text(3, "product") + _text(4, op)
    graph = _field(1, node) + _text(2, "gemm") + _field(5, tensor)
    graph += _field(11, _value("x", left, rows, k)) + _field(12, _value("y", out, rows, n))
    return _number(1, _IR_VERSION) + _field(7, graph) + _field(8, _text(1, "") + _number(2, _OPSET))


def _value(name: str, kind: int, *shape: int) -> bytes:
    """A ValueInfoProto: a tensor's name, type and shape."""
    dimensions = b"".join(_field(1, _number(1, size)) for size in shape)
    return _text(1, name) + _field(2, _field(1, _number(1, kind) + _field(2, dimensions)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _numbers(field: int, *values: int) -> bytes:
    return b"".join(_number(field, value) for value in values)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode())
