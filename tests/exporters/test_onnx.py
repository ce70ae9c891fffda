from __future__ import annotations

import copy
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgelm.exporters import Report, onnx_graph, parity, simplify
from edgelm.exporters import onnx as exporter
from edgelm.manifest import Int8, Precision
from edgelm.model import Encoder
from edgelm.runtimes import Ids, engine

Artifacts = dict[tuple[str, Precision], bytes]


def _proto(artifacts: Artifacts, precision: Precision) -> ModelProto:
    return onnx.load_from_string(artifacts["onnx", precision])


def _constants(proto: ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("precision", exporter.PRECISIONS)
def test_holds_standard_operators_only_and_passes_the_full_check(artifacts: Artifacts, precision: Precision) -> None:
    proto = _proto(artifacts, precision)
    onnx.checker.check_model(proto, full_check=True)
    own = {"MatMulNBits", "GatherBlockQuantized"} if precision == "int4-weights" else set()
    assert {(entry.domain, entry.version) for entry in proto.opset_import} - {("com.microsoft", 1)} == {("", 23)}
    assert {node.op_type for node in proto.graph.node if node.domain} == own
    assert not proto.functions


def test_every_quantized_weight_is_signed_with_one_scale_a_column(artifacts: Artifacts) -> None:
    proto = _proto(artifacts, "int8-dynamic")
    constants = _constants(proto)
    products = [node for node in proto.graph.node if node.op_type == "MatMulInteger"]
    widths = []
    for node in products:
        weight, zero = constants[node.input[1]], constants[node.input[3]]
        scale = constants[node.input[1].removesuffix("_quantized") + "_scale"]
        assert [t.dtype.name for t in (weight, zero, scale)] == ["int8", "int8", "float32"]
        assert zero.shape == scale.shape == (weight.shape[1],)
        assert not zero.any()
        assert (scale > 0).all()
        assert len(np.unique(scale)) > 1
        widths.append(weight.shape)
    layers = [(64, 64)] * 4 + [(64, 96), (96, 64)] + [(64, 32), (32, 64)] + [(64, 48)] * 3 + [(48, 64)]
    assert Counter(widths) == Counter([*layers, (64, 64), (64, 3)])
    float_products = [node for node in proto.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert not float_products


def test_the_word_embeddings_are_signed_with_one_scale_a_row(artifacts: Artifacts, model: Encoder) -> None:
    constants = _constants(_proto(artifacts, "int8-dynamic"))
    codes, scale = (constants[f"embeddings.word.weight_{part}"] for part in ("quantized", "scale"))
    assert (codes.dtype.name, codes.shape, scale.shape) == ("int8", (20_000, 64), (20_000, 1))
    apart = np.abs(codes * scale - model.embeddings.word.weight.detach().numpy())
    assert (apart <= scale / 2 + 1e-7).all()
    assert not [name for name, tensor in constants.items() if tensor.dtype == np.uint8]


def test_a_row_of_zeros_quantizes_to_zeros() -> None:
    table = numpy_helper.from_array(np.array([[0, 0], [1, -2]], np.float32), "t")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "ids"], ["y"])],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        [table],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    onnx_graph.quantize_embedding_(proto)
    constants = _constants(proto)
    np.testing.assert_array_equal(constants["t_quantized"], [[0, 0], [64, -127]])
    np.testing.assert_allclose(constants["t_scale"], np.array([[1], [2 / 127]]))
    onnx.checker.check_model(proto, full_check=True)


def test_every_static_product_is_one_of_integers_in_the_engine(artifacts: Artifacts, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(artifacts["onnx", "int8-static"], options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert found["MatMulIntegerToFloat"] == 14
    assert found["QuantizeLinear"] == 11  # queries, keys and values share one, but for the queries of the last layer
    assert not {"MatMul", "Gemm", "DequantizeLinear"} & set(found)


def test_a_static_answer_depends_on_its_text_alone(artifacts: Artifacts, rows: list[Ids]) -> None:
    session = engine("onnxruntime").load(artifacts["onnx", "int8-static"], threads=1)
    ids, mask = np.zeros((len(rows), 64), np.int32), np.zeros((len(rows), 64), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
    alone = np.concatenate([session.run(row[None], np.ones_like(row)[None]) for row in rows])
    np.testing.assert_allclose(session.run(ids, mask), alone, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("int8", "top", "kind"), [("u8s8", 127, "uint8"), ("u8s7", 64, "uint8"), ("s8s8", 127, "int8")]
)
def test_static_types_are_those_of_the_scheme(
    int8: Int8, top: int, kind: str, model: Encoder, calibration: list[Ids]
) -> None:
    found = exporter.export(model, ("int8-static",), (16,), calibration=calibration, int8=int8)["int8-static"]
    proto = onnx.load_from_string(found)
    constants = _constants(proto)
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].dtype.name == kind
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            codes, scale, zero = (constants[name] for name in node.input)
            assert (codes.dtype.name, np.abs(codes).max()) == ("int8", top)
            assert scale.shape == zero.shape == (codes.shape[1],)
            assert not zero.any()


def test_a_layer_that_stays_in_float_is_said(model: Encoder, rows: list[Ids], calibration: list[Ids]) -> None:
    spoiled, reports = copy.deepcopy(model), list[Report]()
    assert isinstance(spoiled.layers[1].ffn.down, torch.nn.Linear)
    with torch.no_grad():
        spoiled.layers[1].ffn.up.bias[0] = 1e5
        spoiled.layers[1].ffn.down.weight[:, 0] = 0
    artifact = exporter.export(spoiled, ("int8-static",), (64,), calibration=calibration, tell=reports.append)[
        "int8-static"
    ]
    assert "layers.1.ffn.down (error" in reports[0].notes[0]
    session = engine("onnxruntime").load(artifact, threads=1)
    assert parity.check(spoiled, session, rows, rows[:2]).max_abs_diff < 0.15


def test_no_addition_is_left_that_onnxruntime_would_fuse_to_its_slow_kernel(artifacts: Artifacts) -> None:
    for precision in exporter.PRECISIONS:
        nodes = _proto(artifacts, precision).graph.node
        makers = {node.output[0]: node.op_type for node in nodes}
        normalized = [makers[node.input[0]] for node in nodes if node.op_type == "LayerNormalization"]
        assert normalized == ["Sum"] * 7


def test_attention_is_one_operator_without_transposes(artifacts: Artifacts) -> None:
    for precision in exporter.PRECISIONS:
        nodes = _proto(artifacts, precision).graph.node
        found = [node for node in nodes if node.op_type == "Attention"]
        assert [{a.name: a.i for a in node.attribute if a.name != "softmax_precision"} for node in found] == [
            {"q_num_heads": 4, "kv_num_heads": 4},
            {"q_num_heads": 3, "kv_num_heads": 3},
        ]
        assert not {"Transpose", "Reshape"} & {node.op_type for node in nodes}


def test_positions_end_with_the_longest_input(artifacts: Artifacts) -> None:
    assert _constants(_proto(artifacts, "fp32"))["embeddings.position.weight"].shape == (64, 64)


def test_takes_any_batch_and_length(artifacts: Artifacts) -> None:
    shapes = {
        i.name: [d.dim_param for d in i.type.tensor_type.shape.dim] for i in _proto(artifacts, "fp32").graph.input
    }
    assert shapes == {"input_ids": ["batch", "tokens"], "attention_mask": ["batch", "tokens"]}
    session = engine("onnxruntime").load(artifacts["onnx", "int8-dynamic"], threads=1)
    for shape in ((1, 1), (9, 3), (2, 64)):
        assert session.run(np.ones(shape, np.int32), np.ones(shape, np.int32)).shape == (shape[0], 3)


FAILURES = {
    "raises": ("raise RuntimeError('it broke')", "it broke"),
    "crashes": ("import os; os.kill(os.getpid(), 11)", "status -11"),
    "says no": ("simplify = lambda model, **_: (model, False)", "its own check of the result failed"),
    "writes nonsense": (
        "import onnx\nsimplify = lambda model, **_: (onnx.ModelProto(ir_version=10), True)",
        "onnxsim's result was not kept",
    ),
    "changes the numbers": (
        "from onnx import numpy_helper as n\n"
        "def simplify(model, **_):\n"
        "    w = next(t for t in model.graph.initializer if t.name == 'head.classifier.weight')\n"
        "    w.CopyFrom(n.from_array(n.to_array(w) * 1.01, w.name))\n"
        "    return model, True\n",
        "its logits differ by",
    ),
    "makes it larger": (
        "import onnx\n"
        "def simplify(model, **_):\n"
        "    model.graph.node.append(onnx.helper.make_node('Identity', ['logits'], ['unused']))\n"
        "    return model, True\n",
        "nodes, the original",
    ),
}


@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_a_bad_result_of_onnxsim_is_not_kept_and_said(
    failure: str, artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, reason = FAILURES[failure]
    (tmp_path / "onnxsim.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    proto = _proto(artifacts, "fp32")
    kept, notes = simplify.simplified(proto, 64, 20_000)
    assert kept is proto
    assert len(notes) == 1
    assert reason in notes[0]


def test_onnxsim_that_hangs_is_ended(artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxsim.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    _, notes = simplify.simplified(_proto(artifacts, "fp32"), 64, 20_000, timeout_s=0.5)
    assert notes == ("onnxsim's result was not kept: it had not finished after 0 s",)


def test_a_good_result_of_onnxsim_is_kept(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxsim.py").write_text("simplify = lambda model, **_: (model, True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    proto = _proto(artifacts, "fp32")
    kept, notes = simplify.simplified(proto, 64, 20_000)
    assert kept is not proto
    assert notes == ()


def test_builds_with_a_note_and_no_noise_where_onnxsim_crashes(
    artifacts: Artifacts,
    model: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "onnxsim.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reports: list[Report] = []
    found = exporter.export(model, ("int8-dynamic",), (64,), tell=reports.append)
    assert list(found) == ["int8-dynamic"]
    ids = torch.arange(40, dtype=torch.int32).reshape(2, 20).numpy()
    simple, plain = (
        engine("onnxruntime").load(artifact, threads=1).run(ids, np.ones_like(ids))
        for artifact in (artifacts["onnx", "int8-dynamic"], found["int8-dynamic"])
    )
    np.testing.assert_allclose(plain, simple, rtol=0, atol=1e-5)
    assert [report.notes for report in reports] == [
        ("onnxsim's result was not kept: it ended with status -11: it said nothing",)
    ]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("edgelm")] == []
    assert capfd.readouterr() == ("", "")
