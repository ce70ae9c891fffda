"""int8-static for ONNX Runtime: QuantizeLinear and DequantizeLinear around what the linear layers read and hold.

ONNX Runtime turns each product with its two DequantizeLinear into one MatMulIntegerToFloat. Outputs are not rounded:
they go into residuals, softmax and GELU, which are float, and their outliers are what ruins ranges.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from edgelm.exporters.calibrate import Calibration
from edgelm.exporters.onnx_graph import linear_layers, symmetric
from edgelm.exporters.ranges import Range
from edgelm.manifest import Int8

__all__ = ["static"]


def static(
    model: ModelProto, weights: Mapping[str, NDArray[np.float32]], calibration: Calibration, int8: Int8
) -> ModelProto:
    """A copy of a float32 model whose linear layers multiply integers, but for those that are to stay in float.

    Args:
        model: its linear layers are MatMul.
        weights: of the module's linear layers, shape (outputs, inputs).
        calibration: ranges of what they read.
        int8: types of the activations and the weights.
    """
    made = copy.deepcopy(model)
    layers, rounded, nodes = linear_layers(made, weights), set[str](), list[NodeProto]()
    for node in made.graph.node:
        name = layers.get(node.output[0])
        if name is not None and name not in calibration.floating:
            x, weight = node.input
            if x not in rounded:  # queries, keys and values read the same
                nodes += _rounding(made.graph, x, calibration.reads[name], signed=int8.startswith("s8"))
                rounded.add(x)
            nodes.append(_weight(made.graph, weight, 64 if int8.endswith("s7") else 127))
            node = helper.make_node("MatMul", [f"{x}_rounded", f"{weight}_float"], node.output, node.name)
        nodes.append(node)
    kept = copy.deepcopy(nodes)
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


def _rounding(graph: GraphProto, x: str, span: Range, *, signed: bool) -> list[NodeProto]:
    """To a byte and back: the pair that ONNX Runtime takes for the type of what comes next."""
    zero = np.int8(span.zero_point - 128) if signed else np.uint8(span.zero_point)
    scale, zero_point, byte = f"{x}_scale", f"{x}_zero_point", f"{x}_byte"
    graph.initializer.append(numpy_helper.from_array(np.array(span.scale, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(zero), zero_point))
    return [
        helper.make_node("QuantizeLinear", [x, scale, zero_point], [byte], byte),
        helper.make_node("DequantizeLinear", [byte, scale, zero_point], [f"{x}_rounded"], f"{x}_rounded"),
    ]


def _weight(graph: GraphProto, weight: str, top: int) -> NodeProto:
    """A weight, shape (inputs, outputs), as signed bytes with one scale an output."""
    tensor = next(tensor for tensor in graph.initializer if tensor.name == weight)
    codes, scale = symmetric(numpy_helper.to_array(tensor), 0, top)
    graph.initializer.remove(tensor)
    # names of their own: a masked language model's last matrix is also its embeddings
    named = {"byte": codes, "byte_scale": scale[0], "byte_zero_point": np.zeros(scale.shape[1], np.int8)}
    graph.initializer.extend(numpy_helper.from_array(array, f"{weight}_{part}") for part, array in named.items())
    parts = [f"{weight}_{part}" for part in named]
    return helper.make_node("DequantizeLinear", parts, [f"{weight}_float"], f"{weight}_float", axis=1)
