"""Edits of a TFLite model that give it other signatures: weights and operators stay what they are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.exporters.tflite_signatures import Signature, definition, parsed, signatures, text

__all__ = ["adapted", "extracted"]

_OPERATORS = schema.BuiltinOperator


def adapted(content: bytes, source: str, lengths: Sequence[int]) -> bytes:
    """A model with a signature ``tokens_N`` for each length; the same bytes where it has them already.

    Args:
        content: the model.
        source: its file, for errors.
        lengths: for a signature that takes any.
    """
    model = parsed(content, source)
    found = signatures(model, source)
    if all(one.ours for one in found):
        return content
    made = []
    for one in found:
        pristine = copy.deepcopy(model.subgraphs[one.graph])
        for index, length in enumerate([one.length] if one.length else sorted(set(lengths))):
            place = one.graph
            if index:  # the first takes the place of the graph that takes any
                place = len(model.subgraphs)
                model.subgraphs.append(copy.deepcopy(pristine))
            inputs = _prepared(model, model.subgraphs[place], one, length)
            made.append(definition(f"tokens_{length}", place, inputs, {"logits": one.tensor}))
    model.signatureDefs = made
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def extracted(content: bytes, source: str, length: int) -> bytes:
    """One signature as a model of one graph for tf2onnx, from ``input_ids`` and ``attention_mask`` to ``logits``.

    Every tensor gets a name, by which tf2onnx tells them apart, and biases are added by operators of their own: where a
    layer makes rows of its input, tf2onnx 1.17 forgets the bias.

    Args:
        content: the model.
        source: its file, for errors.
        length: of the signature in tokens; of one that takes any, where it must have one: its token types are constant.
    """
    model = parsed(content, source)
    one = next(one for one in signatures(model, source) if one.length in (length, 0))
    graph = model.subgraphs[one.graph]
    inputs = _prepared(model, graph, one, one.length or (length if len(one.inputs) > 2 else 0))
    _split_biases(model, graph)
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"tensor_{index}"
    for name, index in {**inputs, "logits": one.tensor}.items():
        graph.tensors[index].name = name
    graph.inputs, graph.outputs = [inputs["input_ids"], inputs["attention_mask"]], [one.tensor]
    model.subgraphs, model.signatureDefs = [graph], []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _prepared(model: Any, graph: Any, one: Signature, length: int) -> dict[str, int]:
    """Give a graph inputs of ours and, unless it is 0, a length; returns the tensors of ids and mask."""
    found = {}
    for given in one.inputs:
        tensor = graph.tensors[given.tensor]
        if length:
            tensor.shape, tensor.shapeSignature = [1, length], None
        if given.ours == "token_type_ids":
            zeros = np.zeros(length * np.dtype(given.dtype).itemsize, np.uint8)
            model.buffers.append(schema.BufferT(data=zeros))
            tensor.buffer = len(model.buffers) - 1
            graph.inputs.remove(given.tensor)
        elif given.dtype != np.int32:
            found[given.ours] = _cast(model, graph, given.tensor)
        else:
            found[given.ours] = given.tensor
    return found


def _cast(model: Any, graph: Any, to: int) -> int:
    """A new int32 input in place of one of another type, which is computed from it."""
    tensor = copy.copy(graph.tensors[to])
    tensor.type, tensor.name = schema.TensorType.INT32, f"{text(tensor.name)}_int32"
    graph.tensors.append(tensor)
    new = len(graph.tensors) - 1
    options = schema.CastOptionsT(inDataType=schema.TensorType.INT32, outDataType=graph.tensors[to].type)
    graph.operators.insert(0, _operator(model, "CAST", [new], to, schema.BuiltinOptions.CastOptions, options))
    graph.inputs[graph.inputs.index(to)] = new
    return new


def _split_biases(model: Any, graph: Any) -> None:
    for place, operator in reversed(list(enumerate(graph.operators))):
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        if code != _OPERATORS.FULLY_CONNECTED or len(operator.inputs) < 3 or operator.inputs[2] < 0:
            continue
        (out,), bias, layer = operator.outputs, operator.inputs[2], operator.builtinOptions
        graph.tensors.append(copy.copy(graph.tensors[out]))
        product = len(graph.tensors) - 1
        operator.inputs, operator.outputs = [*operator.inputs[:2], -1], [product]
        options = schema.AddOptionsT(fusedActivationFunction=layer.fusedActivationFunction)
        layer.fusedActivationFunction = schema.ActivationFunctionType.NONE
        added = _operator(model, "ADD", [product, bias], out, schema.BuiltinOptions.AddOptions, options)
        graph.operators.insert(place + 1, added)


def _operator(model: Any, name: str, inputs: list[int], out: int, kind: int, options: Any) -> Any:
    code = getattr(_OPERATORS, name)
    model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=1))
    index = len(model.operatorCodes) - 1
    return schema.OperatorT(
        opcodeIndex=index, inputs=inputs, outputs=[out], builtinOptionsType=kind, builtinOptions=options
    )
