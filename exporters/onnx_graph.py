"""Edits of an ONNX graph for ONNX Runtime's CPU kernels. Each changes the model it is given, as the ``_`` says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = [
    "linear_layers",
    "quantize_embedding_",
    "split_gemms_",
    "sum_residuals_",
    "symmetric",
    "take_lookup_",
    "tidy_",
]


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


def linear_layers(model: ModelProto, weights: Mapping[str, NDArray[np.float32]]) -> dict[str, str]:
    """The linear layers: name of the module by the output of its MatMul.

    They are told by what they hold, since names of weights do not outlive a transposition.

    Args:
        model: float32, with MatMul for linear layers.
        weights: of the modules by their names, shape (outputs, inputs).
    """
    names = defaultdict[bytes, list[str]](list)
    for name, weight in reversed(list(weights.items())):
        names[weight.T.tobytes()].append(name)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = dict[str, str]()
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in constants:
            alike = names[numpy_helper.to_array(constants[node.input[1]]).tobytes()]
            if alike:
                found[node.output[0]] = alike.pop()
    return found


def split_gemms_(model: ModelProto) -> None:
    """Write every Gemm of a linear layer as MatMul and Sum: x with a constant, transposed as torch has it or not.

    ONNX Runtime turns MatMul and Add of matrices back into a Gemm, whose bias would have to be quantized as well.
    """
    graph, constants = model.graph, {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in reversed(list(enumerate(graph.node))):
        set_to = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        transposed = set_to.pop("transB", 0)
        if node.op_type == "Gemm" and node.input[1] in constants and not _scales(set_to):
            x, weight, *bias = node.input
            if transposed:
                tensor = constants[weight]
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).T, weight))
            product, out = f"{node.output[0]}_product", node.output[0]
            graph.node.remove(node)
            graph.node.insert(index, helper.make_node("Sum", [product, *bias], [out], out))
            graph.node.insert(index, helper.make_node("MatMul", [x, weight], [product], product))


def _scales(gemm: Mapping[str, float]) -> bool:
    """Whether a Gemm with these attributes does more than to multiply and add."""
    return bool(gemm.get("transA", 0) or gemm.get("alpha", 1.0) != 1.0 or gemm.get("beta", 1.0) != 1.0)


def quantize_embedding_(model: ModelProto) -> None:
    """Store an embedding table as int8 with a scale for each row: y = codes[ids] * scale[ids].

    The quantizer of onnxruntime has one unsigned scale for the whole table, which the longest row decides.

    """
    position, gather, table = take_lookup_(model)
    weight, (ids, out) = gather.input[0], (gather.input[1], gather.output[0])
    codes, scale = symmetric(table, 1)
    model.graph.initializer.extend(
        [numpy_helper.from_array(codes, f"{weight}_quantized"), numpy_helper.from_array(scale, f"{weight}_scale")]
    )
    for node in reversed(_lookup(weight, ids, out)):
        model.graph.node.insert(position, node)


def take_lookup_(model: ModelProto) -> tuple[int, NodeProto, NDArray[np.float32]]:
    """Take the word embeddings' Gather out: where it stood, the node, and the table, shape (rows, dim).

    The table is the longest constant of two dimensions whose rows a Gather takes. It goes too, unless something else
    reads it, as a masked language model's head does.
    """
    tables = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    gathers = [(i, n) for i, n in enumerate(model.graph.node) if n.op_type == "Gather" and n.input[0] in tables]
    position, gather = max(gathers, key=lambda one: tables[one[1].input[0]].dims[0])
    table = tables[gather.input[0]]
    values = numpy_helper.to_array(table)
    model.graph.node.remove(gather)
    if not any(gather.input[0] in node.input for node in model.graph.node):
        model.graph.initializer.remove(table)
    return position, gather, values


def tidy_(model: ModelProto) -> None:
    """Drop what runs nothing: inferred shapes, which the edits have made stale, and the exporter's metadata."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def symmetric(table: NDArray[np.float32], axis: int, top: int = 127) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes from -top to top and scales, one for all values along the axis; where they are all 0 the scale is 1."""
    peak = np.abs(table).max(axis=axis, keepdims=True)
    scale = np.where(peak > 0, peak / top, 1).astype(np.float32)
    codes = table / scale
    return np.rint(codes, out=codes).astype(np.int8), scale  # in place: a table may be of a gigabyte


def _lookup(weight: str, ids: str, out: str) -> list[NodeProto]:
    return [
        helper.make_node("Gather", [f"{weight}_quantized", ids], [f"{out}_codes"], f"{out}_codes", axis=0),
        helper.make_node("Gather", [f"{weight}_scale", ids], [f"{out}_scale"], f"{out}_scale", axis=0),
        helper.make_node("Cast", [f"{out}_codes"], [f"{out}_float"], f"{out}_float", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out], out),
    ]
