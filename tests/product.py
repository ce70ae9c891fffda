"""A linear layer in four bits, as the exporter writes it for ONNX Runtime, and what it may answer, by numpy.

``accuracy_level`` 4 lets ONNX Runtime round the activations, and each processor's kernels do that in their own way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

INPUTS, OUTPUTS, ROWS = 128, 96, 40


def make(folder: Path) -> tuple[Path, Path]:
    """Write the model and its answers.

    Args:
        folder: where there is no such file yet.

    Returns:
        ``product.onnx``, which takes ``ids``, int64, shape (rows,), and ``product.npz`` with them and, by the name of
        a way to round, the answers, shape (rows, outputs).
    """
    from onnx import TensorProto, helper, numpy_helper

    from edgelm.exporters.onnx_int4 import BLOCK, int4, int4_blocks

    random = np.random.default_rng(0)
    shapes = ((ROWS, INPUTS), (INPUTS,), (OUTPUTS, INPUTS))
    table, offset, weight = (random.normal(size=shape).astype(np.float32) for shape in shapes)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["row"]),
        helper.make_node("Add", ["row", "offset"], ["x"]),  # or many values would lie halfway between two of 8 bits
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])
    named = {"table": table, "offset": offset, "w": np.ascontiguousarray(weight.T)}
    constants = [numpy_helper.from_array(value, name) for name, value in named.items()]
    graph = helper.make_graph(nodes, "product", [ids], [out], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "product.onnx").write_bytes(int4(model).SerializeToString())

    asked = np.arange(0, ROWS, 3)
    x = (_meant(*int4_blocks(table, 2 * BLOCK))[asked].astype(np.float32) + offset).astype(np.float64)
    w = _meant(*int4_blocks(weight, BLOCK))
    blocks = _symmetric(x.reshape(len(x), -1, BLOCK)).reshape(x.shape)
    answers = {"float": x @ w.T, "int8 by block": blocks @ w.T, "int8 by row": _asymmetric(x) @ w.T}
    np.savez(folder / "product.npz", ids=asked, **answers)  # type: ignore[arg-type]
    return folder / "product.onnx", folder / "product.npz"


def _meant(codes: NDArray[np.uint8], scales: NDArray[np.float32]) -> NDArray[np.float64]:
    return ((codes.astype(np.float64) - 8) * scales[..., None]).reshape(len(codes), -1)


def _symmetric(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rounded to 8 bits without a zero point, with one scale along the last axis."""
    scale = np.abs(x).max(-1, keepdims=True) / 127
    return np.asarray(np.rint(x / scale) * scale)


def _asymmetric(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same with a zero point."""
    least, most = np.minimum(x.min(-1, keepdims=True), 0), np.maximum(x.max(-1, keepdims=True), 0)
    scale = (most - least) / 255
    zero = np.rint(-128 - least / scale)
    return np.asarray((np.clip(np.rint(x / scale) + zero, -128, 127) - zero) * scale)
