"""Our own TFLite artifacts, read by somebody else: tf2onnx reads the file, ONNX Runtime runs what it found there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgelm.exporters import parity
from edgelm.exporters.tflite_edits import extracted
from edgelm.model import Encoder
from edgelm.runtimes import Ids, Session, engine

pytestmark = pytest.mark.slow  # for the import of TensorFlow
LENGTHS = (8, 16, 32, 64)


def _read(artifact: bytes, length: int) -> Session:
    """One signature of a model, converted by tf2onnx."""
    from edgelm.exporters.tf_onnx import from_tflite

    alone = extracted(artifact, "ours", length)
    return engine("onnxruntime").load(from_tflite(alone).SerializeToString(), threads=1)


def test_what_tf2onnx_is_given_is_what_the_artifact_computes(artifacts: dict[Any, bytes], rows: list[Ids]) -> None:
    alone = Interpreter(model_content=extracted(artifacts["tflite", "fp32"], "ours", 64))
    session = engine("litert").load(artifacts["tflite", "fp32"], threads=1)
    alone.allocate_tensors()
    places = {found["name"]: found["index"] for found in (*alone.get_input_details(), *alone.get_output_details())}
    for row in rows[:5]:
        ids, mask = _padded(row, 64)
        alone.set_tensor(places["input_ids"], ids)
        alone.set_tensor(places["attention_mask"], mask)
        alone.invoke()
        np.testing.assert_allclose(alone.get_tensor(places["logits"]), session.run(ids, mask), rtol=0, atol=2e-6)


def _padded(row: Ids, length: int) -> tuple[Ids, Ids]:
    ids, mask = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
    ids[0, : len(row)], mask[0, : len(row)] = row, 1
    return ids, mask


@pytest.mark.parametrize("length", LENGTHS)
def test_fp32_read_by_tf2onnx_gives_the_modules_logits(
    length: int, artifacts: dict[Any, bytes], model: Encoder, rows: list[Ids]
) -> None:
    session = _read(artifacts["tflite", "fp32"], length)
    short = [row for row in rows if len(row) <= length]
    assert len(short) > 3
    for row, expected in zip(short, parity.reference(model, short), strict=True):
        ids, mask = _padded(row, length)
        np.testing.assert_allclose(session.run(ids, mask)[0], expected, rtol=0, atol=5e-6)


def test_the_weights_of_int8_read_by_tf2onnx_are_those_of_the_module(
    artifacts: dict[Any, bytes], model: Encoder, rows: list[Ids]
) -> None:
    """tf2onnx reads the weights and their scales; that activations are quantized as it runs, TFLite does not write."""
    session = _read(artifacts["tflite", "int8-dynamic"], 64)
    litert = engine("litert").load(artifacts["tflite", "int8-dynamic"], threads=1)
    apart, quantized = [], []
    for row, expected in zip(rows, parity.reference(model, rows), strict=True):
        ids, mask = _padded(row, 64)
        found = session.run(ids, mask)[0]
        apart.append(np.abs(found - expected).max())
        quantized.append(np.abs(litert.run(ids, mask)[0] - found).max())
    assert 1e-5 < max(apart) < 0.1
    assert 1e-5 < max(quantized) < 0.15
