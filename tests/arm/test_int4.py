"""What a processor makes of four-bit weights in ONNX Runtime: one of three ways to round activations, and its own."""

from __future__ import annotations

import os
from pathlib import Path

import bundles
import numpy as np
import onnxruntime
import product
import pytest

from edgelm.devices import cpu


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    if folder := os.environ.get("EDGELM_BUNDLES"):
        return Path(folder) / "product.onnx", Path(folder) / "product.npz"
    return product.make(tmp_path)


def test_a_product_is_what_numpy_says_for_this_processor(made: tuple[Path, Path]) -> None:
    model, answers = made
    with np.load(answers) as known:
        ids = known["ids"]
        expected = {name: known[name] for name in known if name != "ids"}
    found = onnxruntime.InferenceSession(model).run(None, {"ids": ids})[0]
    rounding = 1e-6 * float(np.abs(found).max())  # of sums of 128 products in float32
    differences = {name: float(np.abs(found - answer).max()) for name, answer in expected.items()}
    assert [name for name, difference in differences.items() if difference <= rounding] == [bundles.rounds(cpu.isa())]
