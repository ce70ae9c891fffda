"""What tf2onnx made of a model, as artifacts: in each precision, with edgelm's inputs and output, tried out."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import onnx
from onnx import ModelProto

from edgelm.errors import ExportFailed
from edgelm.exporters import Report, Tell
from edgelm.exporters.foreign import Output
from edgelm.exporters.foreign.rows import interface, rowwise
from edgelm.exporters.onnx_dynamic import dynamic
from edgelm.exporters.onnx_graph import quantize_embedding_
from edgelm.exporters.onnx_pieces import check, serialized
from edgelm.exporters.trial import try_out
from edgelm.manifest import Int8, Precision

__all__ = ["written"]


def written(
    made: ModelProto,
    precisions: Sequence[Precision],
    output: Output,
    limit: int,
    *,
    rows: bool,
    int8: Int8,
    tell: Tell,
) -> dict[Precision, bytes]:
    """A converted model in each precision, as ``edgelm.exporters.Exporter.export`` returns it.

    Args:
        made: the model.
        precisions: fp32, or int8-dynamic as the exporter of our own encoders quantizes it.
        output: of the model.
        limit: its longest input.
        rows: the model takes one row of that length alone.
        int8: types of integer products.
        tell: is given a report of each artifact.

    Raises:
        ExportFailed: an artifact is not valid, or does not load and run.
    """
    artifacts, started = dict[Precision, bytes](), time.perf_counter()
    for precision in precisions:
        name, found = f"onnx {precision}", copy.deepcopy(made)
        if precision == "int8-dynamic":
            quantize_embedding_(found)
            found = dynamic(found, int8)
        nodes = len(found.graph.node)
        found = rowwise(found, limit, output) if rows else _free(found, output)
        artifacts[precision] = serialized(found)
        try:
            check(found, artifacts[precision])
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
            raise ExportFailed(f"{name}: the ONNX checker refuses what was converted: {exc}") from exc
        try_out(artifacts[precision], name, ((1, 2), (1, limit), (3, min(5, limit))), output, by="onnxruntime")
        tell(Report("onnx", precision, len(artifacts[precision]), nodes, time.perf_counter() - started))
        started = time.perf_counter()
    return artifacts


def _free(model: ModelProto, output: Output) -> ModelProto:
    """The same with the inputs and the output that every artifact has."""
    inputs, outputs = interface(output)
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(inputs)
    model.graph.output.extend(outputs)
    return model
