"""References in place of weights, read by the onnx package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from edgelm.bundle import Region
from edgelm.errors import BundleError
from edgelm.runtimes.external import LEAST, referring


def model() -> ModelProto:
    """Every kind of weight that our exporters write, large and small, and fields of every wire type."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=(40, 30)).astype(np.float32), "floats"),
        numpy_helper.from_array(random.integers(-128, 128, (50, 30)).astype(np.int8), "bytes"),
        numpy_helper.from_array(random.normal(size=3).astype(np.float32), "small"),
        helper.make_tensor("nibbles", TensorProto.UINT4, (64, 64), bytes(2048), raw=True),
        helper.make_tensor("unpacked", TensorProto.FLOAT, (500,), random.normal(size=500)),
    ]
    weights[1].data_location = TensorProto.DEFAULT  # as onnxruntime's quantizer writes it
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40])
    node = helper.make_node("MatMul", ["x", "floats"], ["y"], alpha=1.5, beta=-7, names=["a", "b"])
    graph = helper.make_graph([node], "graph", [value], [value], weights, doc_string="ä" * 200)
    made = helper.make_model(graph, producer_name="test", ir_version=10)
    helper.set_model_props(made, {"edgelm": "x" * 300})
    return made


@pytest.mark.parametrize("before", [b"", b"something else\0" * 500])
def test_it_is_the_same_model_once_the_references_are_followed(before: bytes, tmp_path: Path) -> None:
    made = model()
    content, path = made.SerializeToString(), tmp_path / "a b.edgelm"
    path.write_bytes(before + content + b"something after it")
    referred = referring(Region(path, len(before), len(content)))
    assert len(referred) < 6000 < len(content)

    found = onnx.load_model_from_string(referred)
    outside = {tensor.name for tensor in found.graph.initializer if uses_external_data(tensor)}
    assert outside == {"floats", "bytes", "nibbles"}
    assert all(not t.raw_data or len(t.raw_data) < LEAST for t in found.graph.initializer)
    load_external_data_for_model(found, str(tmp_path))
    for tensor in found.graph.initializer:
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    for tensor in made.graph.initializer:
        tensor.ClearField("data_location")
    assert found == made


@pytest.mark.parametrize(
    "content", [b"\x00\x01\x02" * 50, b"\x3a\xff\xff\xff\x7f" + bytes(50), b"\x3b" * 50, b"\xff" * 50]
)
def test_what_is_no_model_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.edgelm"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="expected an ONNX model") as caught:
        referring(Region(path, 0, len(content)))
    assert "\n" not in str(caught.value)
