from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.exporters import Report, tflite_quantize, tflite_static
from edgelm.exporters import tflite as exporter
from edgelm.exporters.ranges import Range, spread
from edgelm.exporters.tflite_graph import slim
from edgelm.manifest import Precision
from edgelm.model import Encoder
from edgelm.runtimes import Ids, engine

Artifacts = dict[tuple[str, Precision], bytes]
LENGTHS = (8, 16, 32, 64)
NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def _read(artifact: bytes) -> Any:
    return flatbuffer_utils.read_model_from_bytearray(bytearray(artifact))


@pytest.mark.parametrize("precision", exporter.PRECISIONS)
def test_has_one_signature_for_each_length(artifacts: Artifacts, precision: Precision) -> None:
    interpreter = Interpreter(model_content=artifacts["tflite", precision])
    assert set(interpreter.get_signature_list()) == {f"tokens_{length}" for length in LENGTHS}
    for length in LENGTHS:
        details = interpreter.get_signature_runner(f"tokens_{length}").get_input_details()
        assert {name: tuple(d["shape"]) for name, d in details.items()} == {
            "input_ids": (1, length),
            "attention_mask": (1, length),
        }


@pytest.mark.parametrize("precision", exporter.PRECISIONS)
def test_holds_builtin_operators_only_and_no_64_bit_tensors(artifacts: Artifacts, precision: Precision) -> None:
    model = _read(artifacts["tflite", precision])
    assert {NAMES[code.builtinCode] for code in model.operatorCodes} <= {
        *("ADD", "BATCH_MATMUL", "CAST", "EMBEDDING_LOOKUP", "FULLY_CONNECTED", "GELU", "MEAN", "MUL", "RELU"),
        *("DEQUANTIZE", "QUANTIZE"),
        *("RESHAPE", "RSQRT", "SLICE", "SOFTMAX", "SQUARED_DIFFERENCE", "SUB", "TRANSPOSE"),
    }
    assert not [code.customCode for code in model.operatorCodes if code.customCode]
    types = {tensor.type for graph in model.subgraphs for tensor in graph.tensors}
    expected = {schema.TensorType.FLOAT32, schema.TensorType.INT32}
    others: dict[str, set[int]] = {
        "fp16": {schema.TensorType.FLOAT16},
        "int8-dynamic": {schema.TensorType.INT8},
        "int8-static": {schema.TensorType.INT8},
        # scales of blocks are float16; 48 inputs are no whole number of blocks
        "int4-weights": {schema.TensorType.INT4, schema.TensorType.FLOAT16, schema.TensorType.INT8},
    }
    assert types == expected | others.get(precision, set())


def test_every_matrix_of_every_signature_is_int8_with_one_scale_an_output(artifacts: Artifacts) -> None:
    model = _read(artifacts["tflite", "int8-dynamic"])
    for graph in model.subgraphs:
        seen = []
        for operator in graph.operators:
            name = NAMES[model.operatorCodes[operator.opcodeIndex].builtinCode]
            if name in ("FULLY_CONNECTED", "EMBEDDING_LOOKUP"):
                weight = graph.tensors[operator.inputs[1]]
                assert weight.type == schema.TensorType.INT8
                assert len(weight.quantization.scale) == weight.shape[0]
                assert not np.any(weight.quantization.zeroPoint)
                seen.append(name)
        assert (seen.count("EMBEDDING_LOOKUP"), seen.count("FULLY_CONNECTED")) == (1, 14)


@pytest.mark.parametrize("precision", exporter.PRECISIONS)
def test_signatures_share_every_weight_but_the_position_slices(artifacts: Artifacts, precision: Precision) -> None:
    model = _read(artifacts["tflite", precision])
    users = defaultdict[int, set[int]](set)
    for index, graph in enumerate(model.subgraphs):
        for tensor in graph.tensors:
            users[tensor.buffer].add(index)
    sizes = {buffer: len(model.buffers[buffer].data) for buffer in users if model.buffers[buffer].data is not None}
    alone = sorted(size for buffer, size in sizes.items() if len(users[buffer]) == 1 and size > 64)
    assert alone == [4 * 64 * length for length in LENGTHS]  # float32 rows of the position embeddings
    assert all(len(users[buffer]) in (1, 4) for buffer, size in sizes.items() if size > 64)


def test_four_signatures_are_hardly_larger_than_one(
    artifacts: Artifacts, model: Encoder, capfd: pytest.CaptureFixture[str]
) -> None:
    one = exporter.export(model, ("int8-dynamic",), (64,))["int8-dynamic"]
    printed = capfd.readouterr()
    assert printed.out == ""  # where --json - writes
    assert set(printed.err.splitlines()) <= {"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."}  # the engine's
    assert len(one) < len(artifacts["tflite", "int8-dynamic"]) < 1.08 * len(one)


def test_slimming_changes_no_logit_and_may_be_repeated(artifacts: Artifacts) -> None:
    artifact = artifacts["tflite", "int8-dynamic"]
    again, nodes = slim(artifact)
    assert nodes > 40
    assert len(again) <= len(artifact)
    ids = np.arange(60, dtype=np.int32).reshape(4, 15)
    before, after = (engine("litert").load(a, threads=1).run(ids, np.ones_like(ids)) for a in (artifact, again))
    np.testing.assert_array_equal(before, after)


def test_large_constants_are_aligned_for_simd(artifacts: Artifacts) -> None:
    model = schema.Model.GetRootAs(artifacts["tflite", "int8-dynamic"])
    outside = [model.Buffers(i) for i in range(model.BuffersLength())]
    offsets = [buffer.Offset() for buffer in outside if buffer.Size()]
    assert len(offsets) > 10
    assert all(offset % 16 == 0 for offset in offsets)


def test_metadata_stays_inside_the_flatbuffer_however_long_it_is(artifacts: Artifacts) -> None:
    long = "x" * 5000
    made, _ = slim(artifacts["tflite", "fp32"], metadata=long)
    model = schema.Model.GetRootAs(made)
    entries = [model.Metadata(index) for index in range(model.MetadataLength())]
    told = [bytes(model.Buffers(entry.Buffer()).DataAsNumpy()) for entry in entries if entry.Name() == b"edgelm"]
    assert long.encode() in told
    ids = np.arange(16, dtype=np.int32)[None]
    before, after = (
        engine("litert").load(artifact, threads=1).run(ids, np.ones_like(ids))
        for artifact in (artifacts["tflite", "fp32"], made)
    )
    np.testing.assert_array_equal(before, after)


def test_a_model_that_bears_no_static_rounding_is_int8_dynamic_and_says_so(
    model: Encoder, calibration: list[Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite_static, "TOLERANCE", 1e-9)
    reports = list[Report]()
    wanted: tuple[Precision, ...] = ("int8-static", "int8-dynamic")
    made = exporter.export(model, wanted, (16,), calibration=calibration, tell=reports.append)
    (note,) = reports[0].notes
    assert len(note.partition(": ")[2].partition(" (")[0].split(", ")) == 14  # every linear layer
    assert "(error 0 of the outputs' variance" in note
    ids = np.arange(16, dtype=np.int32)[None]
    static, dynamic = (engine("litert").load(made[one], threads=1).run(ids, np.ones_like(ids)) for one in wanted)
    np.testing.assert_array_equal(static, dynamic)


def test_nothing_is_cut_off_what_the_model_gives_out(
    model: Encoder, calibration: list[Ids], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other range is cut to nearly nothing; the output's is that of the logits that LiteRT gives in float32."""
    exported = exporter._converted(model, (64,))
    session, seen = engine("litert").load(exported, threads=1), list[dict[str, Range]]()
    logits = np.stack([session.run(row[None], np.ones_like(row)[None])[0] for row in spread(calibration, 128)])

    def watched(content: bytes, spans: dict[str, Range], parts: Any) -> bytes:
        seen.append(spans)
        return tflite_quantize.static(content, spans, parts)

    monkeypatch.setattr(tflite_static, "best_range", lambda values, low, high: Range(-1e-3, 1e-3))
    monkeypatch.setattr(tflite_static, "static", watched)
    tflite_static.calibrated(exported, calibration)
    (whole,) = {span for span in seen[0].values() if span != Range(-1e-3, 1e-3)}
    np.testing.assert_allclose([whole.low, whole.high], [logits.min(), logits.max()], atol=1e-5)
