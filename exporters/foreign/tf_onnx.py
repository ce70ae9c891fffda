"""ONNX by tf2onnx, of a function of TensorFlow or of a TFLite model; what tf2onnx does not know is told to it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from edgelm.errors import ExportFailed
from edgelm.exporters.foreign.operators import HANDLERS
from edgelm.exporters.onnx_graph import tidy_
from edgelm.exporters.quiet import mute, quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with mute(), quiet():
    import tensorflow as tf
    import tf2onnx
    from tf2onnx import optimizer, tfonnx

__all__ = ["OPSET", "from_function", "from_tflite"]

OPSET = 18
"""The newest that tf2onnx writes."""


def from_function(function: Any) -> ModelProto:
    """Convert a ``tf.function`` of (input_ids, attention_mask), int32; any batch, any length.

    Raises:
        ExportFailed: tf2onnx does not convert it, or writes operators that ONNX does not have.
    """
    signature = [tf.TensorSpec((None, None), tf.int32, name=name) for name in ("input_ids", "attention_mask")]
    return _converted(
        lambda: tf2onnx.convert.from_function(function, signature, opset=OPSET, custom_op_handlers=HANDLERS)[0]
    )


def from_tflite(artifact: bytes) -> ModelProto:
    """Convert a TFLite model of one graph; see ``edgelm.exporters.foreign.signatures.alone``.

    Constants in int8 come out as the float32 numbers that they stand for.

    Raises:
        ExportFailed: as ``from_function``.
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


def _converted(convert: Callable[[], ModelProto]) -> ModelProto:
    try:
        with mute(), quiet("tf2onnx"):
            made = convert()
    except Exception as exc:  # it passes on whatever TensorFlow raises
        reason = " ".join(str(exc).split())[:300]
        raise ExportFailed(f"onnx fp32: tf2onnx does not convert the model: {reason}") from exc
    left = sorted({node.op_type for node in made.graph.node if not onnx.defs.has(node.op_type)})
    if left:
        raise ExportFailed(f"onnx fp32: tf2onnx leaves operators that ONNX does not have: {', '.join(left)}")
    tidy_(made)
    return made
