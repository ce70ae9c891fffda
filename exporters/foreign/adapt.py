"""A bare TFLite model with the signatures that edgelm's runtime asks for: weights and operators stay what they are.

A signature of one length is named after it. One of any length is written once for each length, on the same weights.
Inputs of other types are cast from ours, and token types, which are all 0, become a constant.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgelm.errors import CheckpointError
from edgelm.exporters.foreign.fit import meanings, output
from edgelm.exporters.foreign.signatures import Signature, definition, insert, signatures
from edgelm.exporters.tflite_graph import packed

__all__ = ["Way", "adapted", "ways"]

_TYPES = schema.TensorType
_DTYPES = {_TYPES.INT32: np.int32, _TYPES.INT64: np.int64, _TYPES.BOOL: np.bool_, _TYPES.FLOAT32: np.float32}


@dataclass(frozen=True)
class Way:
    """A signature of a model, and what it means.

    Attributes:
        signature: it.
        meaning: our name of each input, by theirs.
        dtypes: of each input, by their name.
        output: their name of the output that counts.
        length: in tokens; 0 when it takes any.
    """

    signature: Signature
    meaning: dict[str, str]
    dtypes: dict[str, Any]
    output: str
    length: int

    def named(self, output: str) -> bool:
        """Whether edgelm's runtime can use it as it is, its output being of this name."""
        types = {name: np.dtype(dtype).name for name, dtype in self.dtypes.items()}
        ours = types == {"input_ids": "int32", "attention_mask": "int32"} and list(self.signature.outputs) == [output]
        return ours and self.length > 0 and self.signature.key == f"tokens_{self.length}"


def ways(model: Any, name: str, source: str) -> list[Way]:
    """The ways into a model, the shortest first: one of any length, or one for each length.

    Args:
        model: see ``edgelm.exporters.foreign.signatures.parsed``.
        name: of the output that is wanted, where there are several.
        source: the model, for errors.

    Raises:
        CheckpointError: inputs that are no token ids and mask, more than one output, or several ways for one length.
    """
    found = sorted((_way(model, one, name, source) for one in signatures(model)), key=lambda way: way.length)
    lengths = [way.length for way in found]
    if len(set(lengths)) < len(lengths) or (0 in lengths and len(lengths) > 1):
        told = ", ".join(f"{way.signature.key} ({way.length or 'any'})" for way in found)
        raise CheckpointError(f"{source}: expected one signature, or one for each number of tokens; found {told}")
    return found


def adapted(model: Any, found: Sequence[Way], lengths: Sequence[int], name: str) -> bytes:
    """The model with a signature ``tokens_N`` for each length.

    Args:
        model: is used up.
        found: the ways into it.
        lengths: for a way that takes any.
        name: of the output.
    """
    made = []
    for way in found:
        graph = way.signature.graph
        pristine = copy.deepcopy(model.subgraphs[graph])
        for index, length in enumerate([way.length] if way.length else sorted(set(lengths))):
            place = graph if index == 0 else len(model.subgraphs)  # the first takes the place of what takes any
            if index:
                model.subgraphs.append(copy.deepcopy(pristine))
            inputs = _inputs(model, model.subgraphs[place], way, length)
            outputs = {name: way.signature.outputs[way.output]}
            made.append(definition(Signature(f"tokens_{length}", place, inputs, outputs)))
    model.signatureDefs = made
    return packed(model)


def _way(model: Any, one: Signature, name: str, source: str) -> Way:
    graph, meaning = model.subgraphs[one.graph], meanings(one.inputs, source)
    tensors = {theirs: graph.tensors[place] for theirs, place in one.inputs.items()}
    shapes = {theirs: _shape(tensor) for theirs, tensor in tensors.items()}
    if any(len(dims) != 2 or dims[0] not in (1, -1) for dims in shapes.values()) or len({*shapes.values()}) > 1:
        told = ", ".join(f"{theirs} {list(dims)}" for theirs, dims in shapes.items())
        raise CheckpointError(f"{source}: expected inputs of shape [1, tokens], found {told}")
    whole = (_TYPES.INT32, _TYPES.INT64)
    odd = [theirs for theirs, tensor in tensors.items() if tensor.type not in _DTYPES]
    odd += [
        theirs for theirs, ours in meaning.items() if ours != "attention_mask" and tensors[theirs].type not in whole
    ]
    if odd:
        raise CheckpointError(f"{source}: expected int32 or int64 inputs, found another type of {', '.join(odd)}")
    dtypes = {theirs: _DTYPES[tensor.type] for theirs, tensor in tensors.items()}
    return Way(one, meaning, dtypes, output(list(one.outputs), name, source), max(0, next(iter(shapes.values()))[1]))


def _inputs(model: Any, graph: Any, way: Way, length: int) -> dict[str, int]:
    """Give a graph our inputs, of a length; returns their tensors."""
    found = {}
    for theirs, ours in way.meaning.items():
        index = way.signature.inputs[theirs]
        tensor = graph.tensors[index]
        tensor.shape, tensor.shapeSignature = [1, length], None
        if ours == "token_type_ids":
            zeros = np.zeros(length * np.dtype(way.dtypes[theirs]).itemsize, np.uint8)
            model.buffers.append(schema.BufferT(data=zeros))
            tensor.buffer = len(model.buffers) - 1
            graph.inputs = [one for one in graph.inputs if one != index]
        else:
            found[ours] = index if way.dtypes[theirs] == np.int32 else _cast(model, graph, index)
    return found


def _cast(model: Any, graph: Any, to: int) -> int:
    """A new int32 input in place of one of another type, which is computed from it."""
    tensor = copy.copy(graph.tensors[to])
    tensor.type, tensor.name = _TYPES.INT32, f"int32_{to}"
    graph.tensors.append(tensor)
    new = len(graph.tensors) - 1
    options = schema.CastOptionsT(inDataType=_TYPES.INT32, outDataType=graph.tensors[to].type)
    insert(model, graph, 0, "CAST", [new], to, options)
    graph.inputs = [new if one == to else one for one in graph.inputs]
    return new


def _shape(tensor: Any) -> tuple[int, ...]:
    dims = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return tuple(int(dim) for dim in (dims if dims is not None else ()))
