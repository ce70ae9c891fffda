"""ONNX by tf2onnx, from a function of TensorFlow or from a TFLite model; what tf2onnx does not know is told to it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgelm.errors import ExportFailed
from edgelm.exporters import Report, Tell
from edgelm.exporters.foreign import words
from edgelm.exporters.onnx_graph import quantize_embedding_, tidy_
from edgelm.exporters.quiet import mute, quiet
from edgelm.exporters.tf_operators import HANDLERS
from edgelm.exporters.trial import try_out
from edgelm.manifest import Precision
from edgelm.model import EncoderConfig

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with mute(), quiet():
    import tensorflow as tf
    import tf2onnx
    from tf2onnx import optimizer, tfonnx

__all__ = ["OPSET", "from_function", "from_tflite", "written"]

OPSET = 18
"""The newest that tf2onnx writes."""

_INPUTS = ("input_ids", "attention_mask")


def from_function(function: Any) -> ModelProto:
    """Convert a ``tf.function`` of (input_ids, attention_mask) to {"logits"}; any batch, any length.

    Raises:
        ExportFailed: tf2onnx does not convert it.
    """
    signature = [tf.TensorSpec((None, None), tf.int32, name=name) for name in _INPUTS]
    return _converted(
        lambda: tf2onnx.convert.from_function(function, signature, opset=OPSET, custom_op_handlers=HANDLERS)[0]
    )


def from_tflite(artifact: bytes) -> ModelProto:
    """Convert a TFLite model of one graph from ``input_ids`` and ``attention_mask`` to ``logits``.

    Constants in int8 come out as the float32 numbers that they stand for.

    Raises:
        ExportFailed: tf2onnx does not convert it.
    """

    def convert() -> ModelProto:
        with tempfile.TemporaryDirectory(prefix="edgelm-tflite-") as folder, tf.Graph().as_default():
            path = Path(folder, "model.tflite")
            path.write_bytes(artifact)
            graph = tfonnx.process_tf_graph(
                None,
                tflite_path=str(path),
                opset=OPSET,
                custom_op_handlers=HANDLERS,
                dequantize=True,
                continue_on_error=True,  # as its own functions do: its search for Gemm trips over ranks that differ
            )
            made: ModelProto = optimizer.optimize_graph(graph).make_model("edgelm")
            return made

    return _converted(convert)


def written(
    made: ModelProto,
    precisions: Sequence[Precision],
    config: EncoderConfig,
    limit: int,
    tell: Tell,
    *,
    rowwise: bool = False,
) -> dict[Precision, bytes]:
    """A converted model in each precision, as ``edgelm.exporters.Exporter.export`` returns it.

    Args:
        made: the model.
        precisions: fp32, or int8-dynamic as the exporter of our own encoders quantizes it.
        config: of the model.
        limit: its longest input.
        tell: is given a report of each artifact.
        rowwise: the model takes one row.

    Raises:
        ExportFailed: an artifact is not valid, or does not load and run.
    """
    artifacts, started = dict[Precision, bytes](), time.perf_counter()
    finish = _rowwise if rowwise else _free
    for precision in precisions:
        name = f"onnx {precision}"
        found = made if precision == "fp32" else _quantized(made)
        found = finish(found, len(config.labels))
        try:
            onnx.checker.check_model(found, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
            raise ExportFailed(f"{name}: the ONNX checker refuses what was converted: {exc}") from exc
        artifacts[precision] = found.SerializeToString()
        try_out(artifacts[precision], name, ((1, 2), (1, limit), (3, min(5, limit))), config, by="onnxruntime")
        nodes, seconds = len(made.graph.node), time.perf_counter() - started
        tell(Report("onnx", precision, len(artifacts[precision]), nodes, seconds))
        started = time.perf_counter()
    return artifacts


def _quantized(made: ModelProto) -> ModelProto:
    """int8-dynamic as the exporter of our own encoders writes it, if the word embeddings are found; see ``onnx``."""
    model = onnx.ModelProto()
    model.CopyFrom(made)
    embedding = _table(model)
    if embedding is not None:
        quantize_embedding_(model, embedding)
    with tempfile.TemporaryDirectory(prefix="edgelm-int8-") as folder, quiet(""):  # it logs to the root logger
        path = Path(folder, "model.onnx")
        try:
            quantize_dynamic(
                model,
                path,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
            )
        except Exception as exc:  # it raises bare ones too
            raise ExportFailed(f"onnx int8-dynamic: onnxruntime does not quantize the model: {exc}") from exc
        quantized = onnx.load(path)
    tidy_(quantized)
    return quantized


def _table(model: ModelProto) -> str | None:
    """Name of the word embeddings; None if they were not found."""
    producers = {out: list(node.input) for node in model.graph.node for out in node.output}
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    gathers = [node.input for node in model.graph.node if node.op_type == "Gather"]
    found = words([(matrix, by, shapes.get(matrix, [])) for matrix, by in gathers], producers)
    return found and found[0]


def _rowwise(model: ModelProto, classes: int) -> ModelProto:
    """A model of one row as a model of any batch: the rows are run one after the other (ONNX's Scan).

    A model of one length takes any up to that: ids and mask are padded to it.
    """
    length = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    constants = {
        "first": np.zeros(1, np.int64),
        "length": np.array([length], np.int64),
        "unpadded": np.zeros(3, np.int64),
    }
    body = _row(model.graph, length, classes)
    rows = [f"{name}_padded" for name in _INPUTS] if length else list(_INPUTS)
    padding = [
        helper.make_node("Shape", ["input_ids"], ["tokens_given"], "shape", start=1),
        helper.make_node("Sub", ["length", "tokens_given"], ["missing"], "missing"),
        helper.make_node("Concat", ["unpadded", "missing"], ["pads"], "pads", axis=0),
        *(helper.make_node("Pad", [name, "pads"], [f"{name}_padded"], f"{name}_pad") for name in _INPUTS),
    ]
    main = [
        *(padding if length else ()),
        helper.make_node("Scan", rows, ["logits"], "rows", body=body, num_scan_inputs=2),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items() if length or name == "first"]
    graph = helper.make_graph(main, "rowwise", *_interface(classes), tensors)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _row(graph: onnx.GraphProto, length: int, classes: int) -> onnx.GraphProto:
    """A graph of one row, without the axis of the batch; its names differ from those outside, as ONNX asks."""
    body = onnx.GraphProto()
    body.CopyFrom(graph)
    inner = {name: f"{name}_one" for name in (*_INPUTS, "logits")}
    for node in body.node:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    before = [helper.make_node("Unsqueeze", [f"{name}_row", "first"], [inner[name]], f"{name}_row") for name in _INPUTS]
    after = helper.make_node("Squeeze", [inner["logits"], "first"], ["logits_row"], "logits_row")
    nodes = [*before, *body.node, after]
    del body.node[:], body.input[:], body.output[:]
    body.node.extend(nodes)
    body.input.extend(
        helper.make_tensor_value_info(f"{name}_row", TensorProto.INT32, [length or "tokens"]) for name in _INPUTS
    )
    body.output.append(helper.make_tensor_value_info("logits_row", TensorProto.FLOAT, [classes]))
    body.name = "row"
    return body


def _free(model: ModelProto, classes: int) -> ModelProto:
    """The same with the interface that every artifact has."""
    inputs, outputs = _interface(classes)
    del model.graph.input[:], model.graph.output[:]
    model.graph.input.extend(inputs)
    model.graph.output.extend(outputs)
    return model


def _interface(classes: int) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Inputs and output of every ONNX artifact of edgelm."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "tokens"]) for name in _INPUTS]
    return inputs, [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])]


def _converted(convert: Callable[[], ModelProto]) -> ModelProto:
    try:
        with mute(), quiet("tf2onnx"):
            made = convert()
    except Exception as exc:  # it passes on whatever TensorFlow raises
        raise ExportFailed(
            f"onnx fp32: tf2onnx does not convert the model: {' '.join(str(exc).split())[:300]}"
        ) from exc
    left = sorted({node.op_type for node in made.graph.node if not onnx.defs.has(node.op_type)})
    if left:
        raise ExportFailed(f"onnx fp32: tf2onnx leaves operators that ONNX does not have: {', '.join(left)}")
    tidy_(made)
    return made
