from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from edgelm.profile import gemm, peak
from edgelm.runs import Peak


def run(content: bytes, x: object) -> NDArray[np.generic]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


def test_a_product_of_integers_is_exact() -> None:
    random = np.random.default_rng(0)
    # 7-bit weights: without VNNI, MLAS adds two products in 16 bits, and 2 * 255 * 127 would not fit
    x, weights = random.integers(0, 256, (5, 300), np.uint8), random.integers(-64, 65, (300, 7), np.int8)
    content = gemm.model("MatMulInteger", 5, weights)
    onnx.checker.check_model(content, full_check=True)
    assert np.array_equal(run(content, x), x.astype(np.int32) @ weights.astype(np.int32))


def test_a_product_of_floats_is_that_of_numpy() -> None:
    random = np.random.default_rng(0)
    x, weights = (random.standard_normal(shape, np.float32) for shape in ((5, 300), (300, 7)))
    content = gemm.model("MatMul", 5, weights)
    onnx.checker.check_model(content, full_check=True)
    assert np.allclose(run(content, x), x @ weights, rtol=1e-4, atol=1e-4)


def test_everything_is_measured() -> None:
    found = peak.measured(1, size=64, copied=2**16, seconds=0.0)
    assert found.threads == 1
    assert min(found.fp32_macs, found.int8_macs, found.bytes) > 1e6


def test_a_copy_is_whole_whatever_the_threads() -> None:
    assert peak._copying(1001, 3, 0.0) > 0


def test_the_best_that_was_measured_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(1.0, 8.0, 3.0), (2.0, 4.0, 3.0), (1.0, 1.0, 1.0), (5.0, 5.0, 5.0), (6.0, 6.0, 6.0)]

    def measured(threads: int) -> Peak:
        fp32, int8, moved = found.pop(0)
        return Peak(fp32_macs=fp32, int8_macs=int8, bytes=moved, threads=threads)

    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(peak, "measured", measured)
    assert peak.peak(2) == Peak(fp32_macs=1.0, int8_macs=8.0, bytes=3.0, threads=2)
    assert peak.peak(2) == Peak(fp32_macs=2.0, int8_macs=8.0, bytes=3.0, threads=2)
    assert peak.peak(2) == Peak(fp32_macs=2.0, int8_macs=8.0, bytes=3.0, threads=2)
    assert peak.peak(1) == Peak(fp32_macs=5.0, int8_macs=5.0, bytes=5.0, threads=1)
    (tmp_path / "blocked").write_text("a file where the folder should be")
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "blocked"))
    assert peak.peak(1).fp32_macs == 6.0
