"""The signatures of a TFLite model: which there are, and one of them as a model of its own, for other tools to read."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.errors import CheckpointError
from edgelm.exporters.tflite_graph import inline

__all__ = ["Signature", "alone", "definition", "insert", "parsed", "signatures"]


@dataclass(frozen=True)
class Signature:
    """A way into a model.

    Attributes:
        key: its name.
        graph: index of the subgraph that it runs.
        inputs: index of each input's tensor, by its name.
        outputs: the same of each output.
    """

    key: str
    graph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


def parsed(content: bytes, source: str) -> Any:
    """The model as objects that can be edited.

    Args:
        content: of the file.
        source: named in errors.

    Raises:
        CheckpointError: it is no TFLite model, or LiteRT does not take it.
    """
    try:
        Interpreter(model_content=content)  # verifies every offset, which reading does not
        return flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    except (ValueError, RuntimeError) as exc:
        reason = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{source}: expected a TFLite model that LiteRT loads: {reason}") from exc


def signatures(model: Any) -> list[Signature]:
    """All of them; in a model without any, inputs and outputs of its first graph as its tensors are named."""
    if model.signatureDefs:
        return [
            Signature(_text(one.signatureKey), one.subgraphIndex, _named(one.inputs), _named(one.outputs))
            for one in model.signatureDefs
        ]
    graph = model.subgraphs[0]
    inputs, outputs = ({_plain(graph.tensors[i].name): int(i) for i in side} for side in (graph.inputs, graph.outputs))
    return [Signature("serving_default", 0, inputs, outputs)]


def definition(one: Signature) -> Any:
    """A signature as TFLite has it."""
    maps = [[schema.TensorMapT(name, index) for name, index in side.items()] for side in (one.inputs, one.outputs)]
    return schema.SignatureDefT(inputs=maps[0], outputs=maps[1], signatureKey=one.key, subgraphIndex=one.graph)


def alone(content: bytes, key: str, source: str = "the artifact") -> bytes:
    """One signature as a model of one graph, with its tensors of input and output named as the signature names them.

    Biases are added by operators of their own: where a FULLY_CONNECTED makes rows of its input, tf2onnx 1.17 loses the
    bias without a word.

    Args:
        content: the model.
        key: of the signature.
        source: named in errors.
    """
    model = parsed(content, source)
    one = next(one for one in signatures(model) if one.key == key)
    graph = model.subgraphs[one.graph]
    _split_biases(model, graph)
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"tensor_{index}"  # ours have none, and tf2onnx tells tensors apart by them
    for name, index in {**one.inputs, **one.outputs}.items():
        graph.tensors[index].name = name
    graph.inputs, graph.outputs = list(one.inputs.values()), list(one.outputs.values())
    model.subgraphs, model.signatureDefs = [graph], []
    return inline(model)


def insert(model: Any, graph: Any, place: int, name: str, inputs: list[int], out: int, options: Any) -> None:
    """Put an operator before the one at ``place``.

    Args:
        model: the model, which gets the operator's code.
        graph: of the model.
        place: index among the graph's operators.
        name: of a built-in operator: ``CAST``.
        inputs: indices of tensors.
        out: index of a tensor.
        options: of the operator, for instance ``CastOptionsT()``.
    """
    code = getattr(schema.BuiltinOperator, name)
    model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=1))
    made = schema.OperatorT(
        opcodeIndex=len(model.operatorCodes) - 1,
        inputs=inputs,
        outputs=[out],
        builtinOptionsType=getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T")),
        builtinOptions=options,
    )
    graph.operators.insert(place, made)


def _split_biases(model: Any, graph: Any) -> None:
    for place, operator in reversed(list(enumerate(graph.operators))):
        name = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        if name == "FULLY_CONNECTED" and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            (out,), bias, layer = operator.outputs, operator.inputs[2], operator.builtinOptions
            graph.tensors.append(copy.copy(graph.tensors[out]))
            product = len(graph.tensors) - 1
            operator.inputs, operator.outputs = [*operator.inputs[:2], -1], [product]
            options = schema.AddOptionsT(fusedActivationFunction=layer.fusedActivationFunction)
            layer.fusedActivationFunction = schema.ActivationFunctionType.NONE
            insert(model, graph, place + 1, "ADD", [product, bias], out, options)


def _named(maps: Any) -> dict[str, int]:
    return {_text(one.name): int(one.tensorIndex) for one in maps}


def _plain(name: Any) -> str:
    """A tensor's name as the user gave it to TensorFlow, without what its converter puts around it."""
    return _text(name).removeprefix("serving_default_").partition(":")[0]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
