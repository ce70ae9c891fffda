"""The signatures of a TFLite model: what its inputs mean, and what is behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.errors import CheckpointError
from edgelm.exporters.foreign import meanings, words
from edgelm.manifest import Precision

__all__ = ["Input", "Signature", "definition", "parsed", "runnable", "signatures", "table", "text", "weights"]

_TYPES = schema.TensorType
_OPERATORS = schema.BuiltinOperator
_DTYPES = {_TYPES.INT32: np.int32, _TYPES.INT64: np.int64, _TYPES.BOOL: np.bool_, _TYPES.FLOAT32: np.float32}
_LOOKUPS = {_OPERATORS.GATHER: (0, 1), _OPERATORS.EMBEDDING_LOOKUP: (1, 0)}
"""Places of the matrix and of the ids among an operator's inputs."""
_PRODUCTS = (_OPERATORS.FULLY_CONNECTED, _OPERATORS.BATCH_MATMUL)
_MATRIX = 1024
"""Constants of fewer numbers are no weights that a precision is told by."""


@dataclass(frozen=True)
class Input:
    """An input of a signature: its name, what we call it, and its tensor."""

    theirs: str
    ours: str
    tensor: int
    dtype: Any


@dataclass(frozen=True)
class Signature:
    """A way into a model.

    Attributes:
        key: its name.
        graph: index of the subgraph that it runs.
        inputs: what goes in.
        output: name of the logits.
        tensor: of the logits.
        length: in tokens; 0 when it takes any.
    """

    key: str
    graph: int
    inputs: tuple[Input, ...]
    output: str
    tensor: int
    length: int

    @property
    def ours(self) -> bool:
        """Whether it is as edgelm's runtime asks for it."""
        names = {one.theirs: np.dtype(one.dtype).name for one in self.inputs}
        same = names == {"input_ids": "int32", "attention_mask": "int32"} and self.output == "logits"
        return same and self.length > 0 and self.key == f"tokens_{self.length}"


def parsed(content: bytes, source: str) -> Any:
    """The model as objects that can be edited.

    Raises:
        CheckpointError: it is no TFLite model, or LiteRT does not take it.
    """
    try:
        Interpreter(model_content=content)  # verifies every offset, which reading does not
        return flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    except (ValueError, RuntimeError) as exc:
        reason = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{source}: expected a TFLite model that LiteRT loads: {reason}") from exc


def signatures(model: Any, source: str) -> list[Signature]:
    """The ways into a model; in one without signatures the tensors are named as its first graph names them.

    Raises:
        CheckpointError: inputs that are no token ids and mask, or an output that is no logits.
    """
    if model.signatureDefs:
        found = [
            _signature(
                model, one.subgraphIndex, text(one.signatureKey), _named(one.inputs), _named(one.outputs), source
            )
            for one in model.signatureDefs
        ]
    else:
        graph = model.subgraphs[0]
        inputs, outputs = ({_plain(graph.tensors[i].name): i for i in side} for side in (graph.inputs, graph.outputs))
        found = [_signature(model, 0, "serving_default", inputs, outputs, source)]
    lengths = [one.length for one in found]
    if len(set(lengths)) < len(lengths) or (0 in lengths and len(lengths) > 1):
        told = ", ".join(f"{one.key} ({one.length or 'any'})" for one in found)
        raise CheckpointError(f"{source}: expected one signature, or one for each number of tokens; found {told}")
    return found


def runnable(content: bytes, model: Any, found: Sequence[Signature]) -> bytes:
    """The model itself, with a signature if it has none, since LiteRT runs signatures."""
    if model.signatureDefs:
        return content
    (one,) = found
    inputs = {given.theirs: given.tensor for given in one.inputs}
    model.signatureDefs = [definition(one.key, one.graph, inputs, {one.output: one.tensor})]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def table(model: Any, one: Signature) -> tuple[int, int] | None:
    """Rows and width of the word embeddings; None if they were not found."""
    graph = model.subgraphs[one.graph]
    names = {given.tensor: given.ours for given in one.inputs}
    producers, lookups = dict[str, list[str]](), []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        inputs = [names.get(index, str(index)) for index in operator.inputs]
        producers |= dict.fromkeys(map(str, operator.outputs), inputs)
        if code in _LOOKUPS:
            matrix, by = (inputs[place] for place in _LOOKUPS[code])
            if matrix.isdecimal():
                lookups.append((matrix, by, list(graph.tensors[int(matrix)].shape)))
    found = words(lookups, producers)
    return found and found[1]


def weights(model: Any, one: Signature, source: str) -> tuple[int, Precision]:
    """How many numbers a signature's constants hold, and the precision that they make it.

    Raises:
        CheckpointError: it is in none that edgelm knows.
    """
    names = {code: name for name, code in vars(_TYPES).items() if isinstance(code, int)}
    graph, parameters, kinds = model.subgraphs[one.graph], 0, set[str]()
    for tensor in graph.tensors:
        data, count = model.buffers[tensor.buffer].data, math.prod(tensor.shape if tensor.shape is not None else ())
        if data is not None and len(data) and (count >= _MATRIX or names[tensor.type] in ("FLOAT32", "INT8")):
            kinds.add(names[tensor.type])
            parameters += count
    products = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode in _PRODUCTS]
    computed = {names[graph.tensors[product.inputs[0]].type] for product in products}
    if not kinds <= {"FLOAT32", "INT8", "INT32"} or not computed <= {"FLOAT32"}:
        found = f"weights in {', '.join(sorted(kinds))}, activations in {', '.join(sorted(computed))}".lower()
        raise CheckpointError(f"{source}: expected weights in float32 or int8, activations in float32; found {found}")
    return parameters, "int8-dynamic" if "INT8" in kinds else "fp32"


def _signature(
    model: Any, index: int, key: str, inputs: dict[str, int], outputs: dict[str, int], source: str
) -> Signature:
    graph, meaning = model.subgraphs[index], meanings(inputs, source)
    tensors = {name: graph.tensors[place] for name, place in inputs.items()}
    shapes = {name: _shape(tensor) for name, tensor in tensors.items()}
    if any(len(dims) != 2 or dims[0] not in (1, -1) for dims in shapes.values()) or len({*shapes.values()}) > 1:
        found = ", ".join(f"{name} {list(dims)}" for name, dims in shapes.items())
        raise CheckpointError(f"{source}: expected inputs of shape [1, tokens], found {found}")
    odd = [name for name, tensor in tensors.items() if tensor.type not in _DTYPES]
    odd += [name for name, ours in meaning.items() if ours == "input_ids" and tensors[name].type not in (2, 4)]
    if odd:
        raise CheckpointError(f"{source}: expected int32 or int64 inputs, found another type of {', '.join(odd)}")
    output = "logits" if "logits" in outputs else next(iter(outputs), "")
    if (len(outputs) != 1 and output != "logits") or graph.tensors[outputs[output]].type != _TYPES.FLOAT32:
        raise CheckpointError(f"{source}: expected one float32 output, or one named logits; found {', '.join(outputs)}")
    return Signature(
        key=key,
        graph=index,
        inputs=tuple(
            Input(name, ours, inputs[name], _DTYPES[tensors[name].type]) for name, ours in sorted(meaning.items())
        ),
        output=output,
        tensor=outputs[output],
        length=max(0, next(iter(shapes.values()))[1]),
    )


def definition(key: str, graph: int, inputs: dict[str, int], outputs: dict[str, int]) -> Any:
    """A signature as TFLite has it, from names and tensors of its inputs and outputs."""
    maps = [[schema.TensorMapT(name, index) for name, index in side.items()] for side in (inputs, outputs)]
    return schema.SignatureDefT(inputs=maps[0], outputs=maps[1], signatureKey=key, subgraphIndex=graph)


def _named(maps: Any) -> dict[str, int]:
    return {text(one.name): one.tensorIndex for one in maps}


def _shape(tensor: Any) -> tuple[int, ...]:
    dims = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    return tuple(int(dim) for dim in (dims if dims is not None else ()))


def _plain(name: Any) -> str:
    """A tensor's name as the user gave it to TensorFlow, without what its converter puts around it."""
    return text(name).removeprefix("serving_default_").partition(":")[0]


def text(name: Any) -> str:
    """A name as text."""
    return name.decode() if isinstance(name, bytes) else str(name)
