"""ONNX models that may be larger than protobuf's 2 GB: written piece by piece, and looked at without their weights.

A message in memory may be of any size. It cannot be written at once, and so not be given to what is written in C++:
the ONNX checker, and shape inference.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, shape_inference

from edgelm.bundle import Parts
from edgelm.runtimes.external import LEAST
from edgelm.runtimes.given import large
from edgelm.runtimes.wire import message

__all__ = ["check", "inferred", "outline", "serialized", "size"]

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


def serialized(model: ModelProto) -> bytes:
    """A model as a protobuf message, of any size."""
    shell, graph = ModelProto(), GraphProto()
    _fill_(shell, model, "graph")
    _fill_(graph, model.graph, "initializer")
    weights = (part for tensor in model.graph.initializer for part in message(_INITIALIZER, _tensor(tensor)))
    return b"".join([shell.SerializeToString(), *message(_GRAPH, [graph.SerializeToString(), *weights])])


def size(model: ModelProto) -> int:
    """Bytes of the weights."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def outline(model: ModelProto) -> ModelProto:
    """A copy of a model that takes its large weights as inputs: in all else it is as sound, or unsound, as that."""
    shell = ModelProto()
    _fill_(shell, model, "graph")
    _fill_(shell.graph, model.graph, "initializer")
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < LEAST:
            shell.graph.initializer.append(tensor)
        else:
            shell.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return shell


def inferred(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """Types and shapes of what lies between inputs and outputs."""
    return list(shape_inference.infer_shapes(outline(model)).graph.value_info)


def check(model: ModelProto, artifact: bytes) -> None:
    """The ONNX checker's full check; of what is too large for it, of the weights one by one and of all else.

    Args:
        model: what is checked.
        artifact: the same, written.

    Raises:
        onnx.checker.ValidationError: it is not valid.
        onnx.shape_inference.InferenceError: its types or shapes are not.
    """
    if not large(len(artifact)):
        onnx.checker.check_model(artifact, full_check=True)
        return
    onnx.checker.check_model(outline(model), full_check=True)
    for tensor in model.graph.initializer:
        if not large(len(tensor.raw_data)):  # one that is alone too large is left to the engine, which tries it out
            onnx.checker.check_tensor(tensor)


def _tensor(tensor: TensorProto) -> Parts:
    rest = TensorProto()
    _fill_(rest, tensor, "raw_data")
    written = rest.SerializeToString()
    return [written, *message(_RAW_DATA, [tensor.raw_data])] if tensor.HasField("raw_data") else [written]


def _fill_(found: Any, source: Any, but: str) -> None:
    """Copy all fields of a message but one into an empty one."""
    for field, value in source.ListFields():
        if field.name == but:
            continue
        if hasattr(value, "extend"):
            getattr(found, field.name).extend(value)
        elif hasattr(value, "CopyFrom"):
            getattr(found, field.name).CopyFrom(value)
        else:
            setattr(found, field.name, value)
