"""What tf2onnx made of a model, as artifacts: in each precision, with edgelm's inputs and output, tried out."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import onnx
from onnx import ModelProto

from edgelm.errors import ExportFailed
from edgelm.exporters import Report, Tell
from edgelm.exporters.foreign import Foreign, Output
from edgelm.exporters.foreign.rows import interface, rowwise
from edgelm.exporters.onnx_dynamic import dynamic
from edgelm.exporters.onnx_graph import quantize_embedding_
from edgelm.exporters.onnx_half import half
from edgelm.exporters.onnx_int4 import int4
from edgelm.exporters.onnx_pieces import check, serialized
from edgelm.exporters.overflow import overflowing, probes
from edgelm.exporters.trial import try_out
from edgelm.manifest import Int8, Precision
from edgelm.runtimes import Ids

__all__ = ["written"]

_IN_FLOAT32 = ("ReduceMean", "Sqrt", "Reciprocal", "Softmax")
"""Of norms and attention, which tf2onnx writes in many operators, where our own have one that does so inside."""


def written(
    made: ModelProto,
    precisions: Sequence[Precision],
    model: Foreign,
    limit: int,
    *,
    rows: bool,
    calibration: Sequence[Ids] | None,
    int8: Int8,
    tell: Tell,
) -> dict[Precision, bytes]:
    """A converted model in each precision, as ``edgelm.exporters.Exporter.export`` returns it.

    Args:
        made: the model.
        precisions: any but int8-static, each as the exporter of our own encoders makes it.
        model: that it was made of.
        limit: its longest input.
        rows: what was made takes one row of that length alone.
        calibration: texts, to see where float16 overflows.
        int8: types of integer products.
        tell: is given a report of each artifact.

    Raises:
        ExportFailed: an artifact is not valid, or does not load and run.
    """
    artifacts, output, started = dict[Precision, bytes](), model.head, time.perf_counter()
    texts = probes(model.config.vocab_size, limit) if calibration is None else calibration
    for precision in precisions:
        name = f"onnx {precision}"
        found, notes = _in(precision, made, texts, limit, int8)
        nodes = len(found.graph.node)
        found = rowwise(found, limit, output) if rows else _free(found, output)
        artifacts[precision] = serialized(found)
        try:
            check(found, artifacts[precision])
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
            raise ExportFailed(f"{name}: the ONNX checker refuses what was converted: {exc}") from exc
        try_out(artifacts[precision], name, ((1, 2), (1, limit), (3, min(5, limit))), output, by="onnxruntime")
        tell(Report("onnx", precision, len(artifacts[precision]), nodes, time.perf_counter() - started, notes))
        started = time.perf_counter()
    return artifacts


def _in(
    precision: Precision, made: ModelProto, texts: Sequence[Ids], limit: int, int8: Int8
) -> tuple[ModelProto, tuple[str, ...]]:
    """A copy in a precision, and what is to be said of it."""
    if precision == "int4-weights":
        return int4(made), ()
    if precision == "fp16":
        fine, large = _delicate(made), overflowing(made, texts, tokens=limit)
        told = [name for name in large if name not in fine]
        note = f"left in float32, where float16 would overflow: {', '.join(told)}"
        return half(made, [*fine, *told]), (note,) if told else ()
    found = copy.deepcopy(made)
    if precision == "int8-dynamic":
        quantize_embedding_(found)
        found = dynamic(found, int8)
    return found, ()


def _delicate(model: ModelProto) -> tuple[str, ...]:
    """Operators in which float16 has too few digits or powers: softmax with its mask, the variance of norms."""
    before = {node.input[0] for node in model.graph.node if node.op_type in ("Softmax", "Sqrt")}
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type in _IN_FLOAT32
        or before.intersection(node.output)
        or (node.op_type == "Mul" and node.input[0] == node.input[1])  # the squares that it is the mean of
    )


def _free(model: ModelProto, output: Output) -> ModelProto:
    """The same with the inputs and the output that every artifact has."""
    inputs, outputs = interface(output)
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(inputs)
    model.graph.output.extend(outputs)
    return model
