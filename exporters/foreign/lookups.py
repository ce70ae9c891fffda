"""A float32 TFLite model of other tools as ai-edge-quantizer takes it: by its own converter's names and operators."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.exporters.foreign.signatures import insert
from edgelm.exporters.tflite_graph import inline

__all__ = ["quantizable"]

_TYPES = schema.TensorType


def quantizable(exported: bytes) -> bytes:
    """The same model with a name for each tensor, and word embeddings that are an EMBEDDING_LOOKUP.

    The quantizer tells tensors apart by their names, also those of different signatures. TensorFlow writes word
    embeddings as a GATHER, whose table the quantizer leaves in float32.
    """
    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(exported))
    for graph in model.subgraphs:
        _look_up_(model, graph)
    _name_(model)
    return inline(model)


def _name_(model: Any) -> None:
    seen = set[str]()
    for place, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            name = tensor.name.decode() if isinstance(tensor.name, bytes) else tensor.name or ""
            tensor.name = f"{place}/{index}/{name}" if not name or name in seen else name
            seen.add(tensor.name)


def _look_up_(model: Any, graph: Any) -> None:
    """Turn the GATHER of the word embeddings, which have the longest table of all, into an EMBEDDING_LOOKUP.

    It takes ids of one dimension. The batch is 1, as in every signature ``tokens_N``.
    """
    found = [
        (graph.tensors[one.inputs[0]].shape[0], place)
        for place, one in enumerate(graph.operators)
        if flatbuffer_utils.opcode_to_name(model, one.opcodeIndex) == "GATHER" and _of_rows(model, graph, one)
    ]
    if not found:
        return
    place = max(found)[1]
    operator = graph.operators.pop(place)
    (table, ids), (out,) = operator.inputs, operator.outputs
    width = int(graph.tensors[table].shape[1])
    rows, flat = _like(graph, out, [-1, width]), _like(graph, ids, [-1])
    taken = flat if graph.tensors[ids].type == _TYPES.INT32 else _like(graph, flat, [-1])
    graph.tensors[taken].type = _TYPES.INT32
    ones = len(graph.tensors[out].shape) - 2
    _reshape(model, graph, place, rows, out, [1] * ones + [-1, width])
    code = schema.BuiltinOperator.EMBEDDING_LOOKUP
    model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=1))
    number = len(model.operatorCodes) - 1
    graph.operators.insert(place, schema.OperatorT(opcodeIndex=number, inputs=[taken, table], outputs=[rows]))
    if taken != flat:
        cast = schema.CastOptionsT(inDataType=graph.tensors[flat].type, outDataType=_TYPES.INT32)
        insert(model, graph, place, "CAST", [flat], taken, cast)
    _reshape(model, graph, place, ids, flat, [-1])


def _of_rows(model: Any, graph: Any, operator: Any) -> bool:
    """Whether a GATHER takes rows of a constant matrix."""
    table, options = graph.tensors[operator.inputs[0]], operator.builtinOptions
    constant = model.buffers[table.buffer].data is not None
    matrix = table.type == _TYPES.FLOAT32 and len(table.shape) == 2
    return constant and matrix and not options.axis and not options.batchDims


def _like(graph: Any, index: int, shape: Sequence[int]) -> int:
    """A new tensor of another's type, in another shape; -1 is what the engine finds out."""
    tensor = copy.copy(graph.tensors[index])
    tensor.name, tensor.buffer, tensor.shapeSignature = None, 0, list(shape)
    tensor.shape = [max(1, n) for n in shape]
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _reshape(model: Any, graph: Any, place: int, index: int, to: int, shape: Sequence[int]) -> None:
    """Put a RESHAPE of one tensor to another before the operator at ``place``."""
    model.buffers.append(schema.BufferT(data=np.array(shape, np.int32).view(np.uint8)))
    graph.tensors.append(schema.TensorT(shape=[len(shape)], type=_TYPES.INT32, buffer=len(model.buffers) - 1))
    options = schema.ReshapeOptionsT(newShape=list(shape))
    insert(model, graph, place, "RESHAPE", [index, len(graph.tensors) - 1], to, options)
