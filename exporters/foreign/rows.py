"""An ONNX model of one row, of one length, as one of any batch and of any length up to that."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgelm.exporters.foreign import Output

__all__ = ["interface", "rowwise"]

_INPUTS = ("input_ids", "attention_mask")


def interface(output: Output) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Inputs and output of every ONNX artifact of edgelm."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "tokens"]) for name in _INPUTS]
    shape: list[str | int | None] = ["batch", *(["tokens"] if output.by_token else []), output.width]
    return inputs, [helper.make_tensor_value_info(output.OUTPUT, TensorProto.FLOAT, shape)]


def rowwise(model: ModelProto, length: int, output: Output) -> ModelProto:
    """Pad ids and mask to the length, run the rows one after the other, and cut what each token gave.

    Args:
        model: takes ids and mask of shape (1, length).
        length: in tokens.
        output: of the model.
    """
    name, long = output.OUTPUT, f"{output.OUTPUT}_long"
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["tokens_given"], "shape", start=1),
        helper.make_node("Sub", ["length", "tokens_given"], ["missing"], "missing"),
        helper.make_node("Concat", ["unpadded", "missing"], ["pads"], "pads", axis=0),
        *(helper.make_node("Pad", [name, "pads"], [f"{name}_padded"], f"{name}_pad") for name in _INPUTS),
        helper.make_node(  # a loop over the rows [ONNX operators, Scan]
            "Scan",
            [f"{name}_padded" for name in _INPUTS],
            [long if output.by_token else name],
            "rows",
            body=_row(model.graph, length, output),
            num_scan_inputs=2,
        ),
    ]
    constants = {"first": [0], "length": [length], "unpadded": [0, 0, 0]}
    if output.by_token:
        nodes.append(helper.make_node("Slice", [long, "first", "tokens_given", "second"], [name], "cut"))
        constants["second"] = [1]
    tensors = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "rowwise", *interface(output), tensors)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _row(graph: onnx.GraphProto, length: int, output: Output) -> onnx.GraphProto:
    """The graph without the axis of the batch; its names differ from those outside, as ONNX asks."""
    body = onnx.GraphProto()
    body.CopyFrom(graph)
    inner = {name: f"{name}_one" for name in (*_INPUTS, output.OUTPUT)}
    for node in body.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    last = f"{output.OUTPUT}_row"
    nodes = [
        *(helper.make_node("Unsqueeze", [f"{name}_row", "first"], [inner[name]], f"{name}_row") for name in _INPUTS),
        *body.node,
        helper.make_node("Squeeze", [inner[output.OUTPUT], "first"], [last], last),
    ]
    del body.node[:], body.input[:], body.output[:]
    body.node.extend(nodes)
    body.input.extend(helper.make_tensor_value_info(f"{name}_row", TensorProto.INT32, [length]) for name in _INPUTS)
    shape = list(output.shape(1, length))[1:]
    body.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, shape))
    body.name = "row"
    return body
