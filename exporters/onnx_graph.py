"""Edits of an ONNX graph for ONNX Runtime's CPU kernels. Each changes the model it is given, as the ``_`` says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["quantize_embedding_", "sum_residuals_", "tidy_"]


def sum_residuals_(model: ModelProto) -> int:
    """Turn every Add that feeds a LayerNormalization into a Sum: the same numbers, much faster.

    ONNX Runtime fuses Add + LayerNormalization to SkipLayerNormalization, whose CPU kernel is a scalar loop, several
    times slower than the two it replaces. It does not know the pattern with Sum.

    Returns:
        How many were turned.
    """
    summed = {node.input[0] for node in model.graph.node if node.op_type == "LayerNormalization"}
    residuals = [node for node in model.graph.node if node.op_type == "Add" and node.output[0] in summed]
    for node in residuals:
        node.op_type = "Sum"
    return len(residuals)


def quantize_embedding_(model: ModelProto) -> None:
    """Store an embedding table as int8 with a scale for each row: y = codes[ids] * scale[ids].

    The quantizer of onnxruntime has one unsigned scale for the whole table, which the longest row decides.

    Args:
        model: the model. The table is the one initializer of two dimensions whose rows a Gather takes.
    """
    tables = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    nodes = enumerate(model.graph.node)
    position, gather = next((i, node) for i, node in nodes if node.op_type == "Gather" and node.input[0] in tables)
    weight, table = gather.input[0], tables[gather.input[0]]
    codes, scale = _symmetric(numpy_helper.to_array(table))
    if sum(weight in node.input for node in model.graph.node) == 1:  # a masked language model's head reads it too
        model.graph.initializer.remove(table)
    model.graph.initializer.extend(
        [numpy_helper.from_array(codes, f"{weight}_quantized"), numpy_helper.from_array(scale, f"{weight}_scale")]
    )
    ids, out = gather.input[1], gather.output[0]
    model.graph.node.remove(gather)
    for node in reversed(_lookup(weight, ids, out)):
        model.graph.node.insert(position, node)


def tidy_(model: ModelProto) -> None:
    """Drop what runs nothing: inferred shapes, which the edits have made stale, and the exporter's metadata."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _symmetric(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes in -127..127 and scales, shape (rows, 1); a row of zeros has scale 1."""
    peak = np.abs(table).max(axis=1, keepdims=True)
    scale = np.where(peak > 0, peak / 127, 1).astype(np.float32)
    return np.rint(table / scale).astype(np.int8), scale


def _lookup(weight: str, ids: str, out: str) -> list[NodeProto]:
    return [
        helper.make_node("Gather", [f"{weight}_quantized", ids], [f"{out}_codes"], f"{out}_codes", axis=0),
        helper.make_node("Gather", [f"{weight}_scale", ids], [f"{out}_scale"], f"{out}_scale", axis=0),
        helper.make_node("Cast", [f"{out}_codes"], [f"{out}_float"], f"{out}_float", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out], out),
    ]
