"""Where ONNX Runtime really runs. There is no accelerator here: a provider of the CPU wheel stands in for one."""

from __future__ import annotations

import platform
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tiny

from edgelm.bundle import Bundle
from edgelm.devices.machine import machine
from edgelm.errors import BundleError, DeviceUnavailable
from edgelm.runtimes import Ids, ort, providers
from edgelm.runtimes.place import Place
from edgelm.runtimes.providers import PROVIDERS, Provider

AZURE = Provider("AzureExecutionProvider", "azure-package")  # in the wheel, and never takes a node of ours


@pytest.fixture
def artifact(tiny_bundle: Path) -> bytes:
    return Bundle(tiny_bundle).read("model.int8-dynamic.onnx")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "openvino", AZURE)


@pytest.fixture
def request_(monkeypatch: pytest.MonkeyPatch) -> tuple[Ids, Ids]:
    ids = np.random.default_rng(0).integers(5, tiny.vocab_size(), (1, 9), np.int32)
    return ids, np.ones_like(ids)


def test_the_nodes_of_the_cpu_are_those_of_the_optimized_graph(artifact: bytes, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    facts = ort.load(artifact, threads=1).explain()
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # what precedes assignment
    onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    nodes = len(onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert facts["nodes"] == {"CPUExecutionProvider": nodes}


@pytest.mark.usefixtures("stand_in")
def test_nodes_left_to_the_cpu_are_refused_by_kind_and_number(artifact: bytes) -> None:
    nodes = ort.load(artifact, threads=1).explain()["nodes"]["CPUExecutionProvider"]
    with pytest.raises(
        DeviceUnavailable, match=rf"device 'openvino': {nodes} of {nodes} nodes would run on the CPU \("
    ) as caught:
        ort.load(artifact, threads=1, place=Place("openvino"))
    assert "allow_cpu_ops" in str(caught.value)
    assert "MatMulInteger" in str(caught.value)


@pytest.mark.usefixtures("stand_in")
def test_nodes_left_to_the_cpu_are_told_where_that_is_allowed(artifact: bytes, request_: tuple[Ids, Ids]) -> None:
    plain = ort.load(artifact, threads=1)
    allowed = ort.load(artifact, threads=1, place=Place("openvino", allow_cpu_ops=True))
    facts = allowed.explain()
    assert (facts["device"], facts["provider"]) == ("openvino", AZURE.name)
    assert facts["nodes"] == plain.explain()["nodes"]
    np.testing.assert_array_equal(allowed.run(*request_), plain.run(*request_))


def test_a_provider_that_does_not_start_is_refused(artifact: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROVIDERS, "openvino", Provider("OpenVINOExecutionProvider", "the-package"))
    with pytest.raises(DeviceUnavailable, match=r"device 'openvino': .* cannot start .*; it wants .*'the-package'"):
        ort.load(artifact, threads=1, place=Place("openvino"))


@pytest.mark.parametrize("nodes", [{}, {"CPUExecutionProvider": Counter(MatMul=3)}])
def test_a_provider_that_ort_leaves_out_is_refused(nodes: dict[str, Counter[str]]) -> None:
    with pytest.raises(DeviceUnavailable, match=r"would use CPUExecutionProvider: pip install 'the-package'"):
        ort._hold(Place("openvino"), replace(AZURE, package="the-package"), ["CPUExecutionProvider"], nodes)


def test_a_gpu_of_another_number_is_told_with_those_that_are_there(
    artifact: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = msgspec.structs.replace(machine(), gpus=("A", "B"))
    monkeypatch.setattr(ort, "machine", lambda: here)
    with pytest.raises(DeviceUnavailable, match=r"device 'cuda:2': .* has cuda:0 \(A\), cuda:1 \(B\)"):
        ort.load(artifact, threads=1, place=Place("cuda", 2))


@pytest.mark.usefixtures("stand_in")
def test_what_computes_shapes_is_not_held_against_a_device(artifact: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ort._nodes(ort.load(artifact, threads=1)._session)["CPUExecutionProvider"]  # type: ignore[attr-defined]
    monkeypatch.setitem(PROVIDERS, "openvino", replace(AZURE, host=frozenset(kinds) - {"MatMulInteger"}))
    count = kinds["MatMulInteger"]
    with pytest.raises(DeviceUnavailable, match=rf"{count} of {kinds.total()} nodes would .*\({count} MatMulInteger\)"):
        ort.load(artifact, threads=1, place=Place("openvino"))
    monkeypatch.setitem(PROVIDERS, "openvino", replace(AZURE, host=frozenset(kinds)))
    facts = ort.load(artifact, threads=1, place=Place("openvino")).explain()
    assert facts["nodes"] == {"CPUExecutionProvider": kinds.total()}  # and told all the same


@pytest.mark.parametrize("device", sorted(set(PROVIDERS) - {"cpu"}))
def test_a_device_that_is_not_there_is_told_with_what_is_and_with_the_cure(device: str) -> None:
    import onnxruntime

    said = ort.missing(device) or ""
    assert f"ONNX Runtime {onnxruntime.__version__} has " in said
    assert "CPUExecutionProvider" in said
    assert f"not {PROVIDERS[device].name}" in said
    assert ("pip install" in said) is (PROVIDERS[device].system in ("", platform.system()))


def test_what_is_built_in_can_be_tried() -> None:
    assert providers.missing("cuda", ["CUDAExecutionProvider", "CPUExecutionProvider"], "1.32.0") is None


@pytest.mark.parametrize(("system", "known"), [("Darwin", False), ("Windows", True)])
def test_a_device_of_another_system_has_no_cure_by_pip(
    system: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    said = providers.missing("directml", ["CPUExecutionProvider"], "1.32.0") or ""
    assert ("pip install 'onnxruntime-directml'" in said) is known
    assert ("exists on Windows alone" in said) is not known


def test_the_number_of_a_device_is_told_to_its_provider() -> None:
    assert PROVIDERS["cuda"].options(Place("cuda", 1)) == {"device_id": "1", "use_tf32": "0"}
    assert PROVIDERS["cuda"].options(Place("cuda")) == {"use_tf32": "0"}
    assert PROVIDERS["openvino"].options(Place("openvino")) == {}


def test_a_model_that_does_not_load_is_not_tried_again_on_another_provider(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BundleError):
        ort.load(b"no model", threads=1)
    assert "Falling back" not in capfd.readouterr().out


def test_what_cuda_says_is_told_without_where_it_was_noticed() -> None:
    said = "/src/cuda_call.cc:154 Call(E) [with THRW = true] CUDA failure 100: no CUDA-capable device ; GPU=-1"
    assert ort._line(RuntimeError(said)) == "CUDA failure 100: no CUDA-capable device"
    assert ort._line(RuntimeError("/src/a.cc:3 f() [ONNXRuntimeError] : 1 : FAIL : it  broke")) == "1 : FAIL : it broke"
