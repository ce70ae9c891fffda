"""Integer products at their extremes, against exact arithmetic: what saturates in 16 bits would be seen here."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgelm import devices
from edgelm.devices.machine import machine
from edgelm.exporters.calibrate import Calibration
from edgelm.exporters.onnx_dynamic import dynamic
from edgelm.exporters.onnx_static import static
from edgelm.exporters.quiet import quiet
from edgelm.exporters.ranges import Range
from edgelm.manifest import Int8

Integers = NDArray[np.int64]
TOPS: dict[Int8, int] = {"u8s8": 127, "u8s7": 64, "s8s8": 127}
VNNI = {"avx512_vnni", "avx_vnni"}


def vpmaddubsw(a: Integers, w: Integers) -> Integers:
    """Products of unsigned and signed bytes as AVX2 adds them: two in 16 bits, saturating, then in 32 bits."""
    pairs = (a[:, :, None] * w).reshape(len(a), -1, 2, w.shape[1]).sum(2)
    found: Integers = pairs.clip(-(2**15), 2**15 - 1).sum(1)
    return found


def extremes(top: int) -> tuple[Integers, Integers]:
    """Activations and weights of 64 inputs at the ends of their types, in every combination of two neighbours."""
    a = np.array([(one, other) for one in (0, 255) for other in (0, 255)], np.int64)
    w = np.array([(one, other) for one in (-top, top) for other in (-top, top)], np.int64)
    return np.tile(a, (1, 32)), np.tile(w, (1, 32)).T


@pytest.mark.parametrize("int8", [scheme for scheme in TOPS if scheme.startswith("u8")])
def test_only_weights_of_seven_bits_are_safe_in_16_bit_sums(int8: Int8) -> None:
    a, w = extremes(TOPS[int8])
    saturates = bool((vpmaddubsw(a, w) != a @ w).any())
    assert saturates == (int8 == "u8s8")


@pytest.mark.parametrize("name", devices.names())
def test_a_profile_without_vnni_has_a_scheme_that_is_safe_without(name: str) -> None:
    device = devices.load(name)
    if device.arch == "x86_64":
        a, w = extremes(TOPS[device.int8])
        assert device.int8.startswith("u8")  # signed activations have no fast kernel there
        assert VNNI & set(device.isa) or (vpmaddubsw(a, w) == a @ w).all()


def linear(weight: NDArray[np.float32]) -> ModelProto:
    """One linear layer, as the exporter leaves them."""
    inputs, outputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Sum", ["product", "l.bias"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.zeros(outputs, np.float32), "l.bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def run(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("way", ["dynamic", "static"])
@pytest.mark.parametrize("int8", get_args(Int8))
def test_the_engine_multiplies_extremes_exactly_or_as_simulated(int8: Int8, way: str) -> None:
    top = TOPS[int8]
    a, w = extremes(top)
    model, x = linear((w / top).astype(np.float32)), a.astype(np.float32)  # a scale of 1 and of 1 / top
    if way == "static":
        model = static(
            model, {"l": (w / top).astype(np.float32).T}, Calibration({"l": Range(0.0, 255.0)}, (), 0.0, 0.0), int8
        )
    else:
        model = dynamic(model, int8)
    # on x86, ONNX Runtime makes signed activations unsigned ones, and dynamic ones always are
    saturates = top == 127 and machine().arch == "x86_64" and not VNNI & set(machine().isa)
    expected = vpmaddubsw(a, w) if saturates else a @ w
    np.testing.assert_allclose(run(model, x), expected / top, rtol=1e-5, atol=1e-3)


def lite(weight: NDArray[np.float32]) -> bytes:
    """The same layer as the converter to TFLite leaves it, with one signature."""
    import litert_torch

    layer = torch.nn.Linear(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T))
        layer.bias.zero_()
    given = {"input": torch.ones(4, len(weight))}
    with quiet():
        converted = litert_torch.signature("it", layer.eval(), sample_kwargs=given).convert()
    content: bytes = converted.model_content()
    return content


@pytest.mark.parametrize("way", ["dynamic", "static"])
def test_litert_multiplies_extremes_exactly(way: str) -> None:
    from ai_edge_litert.interpreter import Interpreter

    from edgelm.exporters.tflite_quantize import quantized
    from edgelm.exporters.tflite_quantize import static as static_lite

    a, w = extremes(127)
    x = (a - 128).astype(np.float32)  # LiteRT's activations are signed
    exported = lite((w / 127).astype(np.float32))
    expected = x.astype(np.int64) @ w
    if way == "static":
        reader = Interpreter(model_content=exported)
        runner = reader.get_signature_runner("it")
        sides = runner.get_input_details(), runner.get_output_details()
        given, got = (next(iter(side.values()))["name"] for side in sides)
        widest = float(np.abs(expected).max()) / 127
        ranges = {given: Range(-128.0, 127.0), got: Range(-widest, widest)}
        made = static_lite(exported, ranges, [got])
    else:
        made, _ = quantized(exported, "int8-dynamic")
    session = Interpreter(model_content=made, num_threads=1).get_signature_runner("it")
    found = next(iter(session(input=x).values()))
    step = 2 * float(np.abs(expected).max()) / 127 / 255 if way == "static" else 1e-3  # what is given is a byte, too
    np.testing.assert_allclose(found, expected / 127, rtol=1e-4, atol=step)
