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
from edgelm.runtimes.external import LEAST, apart, joined, referring, shell


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
    assert plain(found) == plain(made)


def plain(made: ModelProto) -> ModelProto:
    """Without what reading external data leaves behind."""
    for tensor in made.graph.initializer:
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    return made


def written(folder: Path, made: ModelProto) -> tuple[bytes, bytes]:
    """A model and its weights, in two files."""
    files = {name: b"".join(parts) for name, parts in apart("a.onnx", made.SerializeToString()).items()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files["a.onnx"], files["a.onnx.data"]


def test_taken_apart_it_is_the_same_model_to_the_onnx_package(tmp_path: Path) -> None:
    small, _ = written(tmp_path, model())
    assert len(small) < 6000
    found = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    places = [{entry.key: entry.value for entry in t.external_data} for t in found.graph.initializer]
    assert [int(one["offset"]) % 4096 for one in places if one] == [0, 0, 0]
    assert plain(onnx.load(tmp_path / "a.onnx")) == plain(model())


def test_joined_it_is_the_same_model_again(tmp_path: Path) -> None:
    small, weights = written(tmp_path, model())
    found = onnx.load_model_from_string(joined(small, weights))
    assert plain(found) == plain(model())


@pytest.mark.parametrize(("before", "between"), [(b"", b""), (b"something else" * 99, b"more" * 77)])
def test_weights_that_lie_beside_their_model_are_referred_to_there(
    before: bytes, between: bytes, tmp_path: Path
) -> None:
    small, weights = written(tmp_path, model())
    path = tmp_path / "a b.edgelm"
    path.write_bytes(before + small + between + weights + b"something after it")
    at = len(before) + len(small) + len(between)
    found = onnx.load_model_from_string(
        referring(Region(path, len(before), len(small)), Region(path, at, len(weights)))
    )
    load_external_data_for_model(found, str(tmp_path))
    assert plain(found) == plain(model())


@pytest.mark.parametrize("size", [0, 4096, -1])
def test_a_reference_to_what_is_not_there_is_refused(size: int, tmp_path: Path) -> None:
    small, weights = written(tmp_path, model())
    path = tmp_path / "a.edgelm"
    path.write_bytes(small + weights)
    with pytest.raises(BundleError, match="expected an ONNX model, found something else"):
        referring(Region(path, 0, len(small)), Region(path, len(small), len(weights[:size])))
    with pytest.raises(BundleError, match="expected an ONNX model, found something else"):
        joined(small, weights[:size])
    with pytest.raises(BundleError, match="which are not in the bundle"):
        referring(Region(path, 0, len(small)))  # they would be sought in the folder
    with pytest.raises(BundleError, match="of another file"):
        shell(small, "a")


@pytest.mark.parametrize(
    "content", [b"\x00\x01\x02" * 50, b"\x3a\xff\xff\xff\x7f" + bytes(50), b"\x3b" * 50, b"\xff" * 50]
)
def test_what_is_no_model_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.edgelm"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="expected an ONNX model") as caught:
        referring(Region(path, 0, len(content)))
    assert "\n" not in str(caught.value)
