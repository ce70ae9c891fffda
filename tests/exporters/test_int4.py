"""int4-weights against weights that four bits can say: nothing may be lost but what activations in eight bits lose."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgelm.exporters import exporter
from edgelm.exporters.onnx_int4 import int4, int4_blocks
from edgelm.model import Encoder, EncoderConfig
from edgelm.runtimes import engine

GRIDS = {"onnx": (-8, 8), "tflite": (-7, 7)}
"""The code at the end of every block: ONNX Runtime's go to -8, the scales of TFLite's are by 7."""


def on_grid(shape: tuple[int, ...], form: str, seed: int) -> NDArray[np.float32]:
    """Weights of whole numbers from -7 to 7 with a power of two as scale, another in every 32."""
    random = np.random.default_rng(seed)
    codes = random.integers(-7, 8, (shape[0], shape[1] // 32, 32))
    codes[..., 5] = GRIDS[form][0]
    scales = 2.0 ** random.integers(-7, -4, (*codes.shape[:2], 1))
    if form == "onnx":  # its blocks are of 64, and of 128 in the embeddings
        scales = np.broadcast_to(scales[:, :1], scales.shape)
    return (codes * scales).reshape(shape).astype(np.float32)


@pytest.mark.parametrize("form", sorted(GRIDS))
def test_weights_that_four_bits_can_say_are_kept(form: str) -> None:
    torch.manual_seed(0)
    shape = EncoderConfig(
        vocab_size=64, dim=128, head_dim=32, heads=(4,), ffn=(192,), max_positions=16, labels=("a", "b")
    )
    model = Encoder(shape).eval()
    with torch.no_grad():
        for seed, module in enumerate(model.modules()):
            if isinstance(module, nn.Linear | nn.Embedding) and module is not model.embeddings.position:
                module.weight.copy_(torch.from_numpy(on_grid(tuple(module.weight.shape), form, seed)))
    artifact = exporter(form).export(model, ("int4-weights",), (16,))["int4-weights"]
    ids = np.random.default_rng(0).integers(0, 64, (6, 16), np.int32)
    with torch.no_grad():
        expected = model(torch.from_numpy(ids), torch.ones(6, 16)).numpy()
    session = engine(exporter(form).ENGINE).load(artifact, threads=1)
    found = np.concatenate([session.run(row[None], np.ones_like(row)[None]) for row in ids])
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.03 * float(np.abs(expected).max()))


def test_scales_are_chosen_that_lose_least() -> None:
    table = np.random.default_rng(1).normal(size=(8, 100)).astype(np.float32)
    table[0, 3] = 9.0
    table[1] = 0.0
    codes, scales = int4_blocks(table, 32)
    assert codes.shape == (8, 4, 32)
    assert codes.max() <= 15
    assert not (scales.view(np.uint32) & 0xFFFF).any()  # a bfloat16: KleidiAI cuts the rest off
    assert not codes[0, 3, 4:].std()  # what a row is filled up with means 0
    said = ((codes.astype(np.float32) - 8) * scales[..., None]).reshape(8, -1)[:, :100]
    assert not said[1].any()
    step = np.abs(np.pad(table, ((0, 0), (0, 28))).reshape(8, 4, 32)).max(-1) / 8
    rounded = np.clip(np.rint(table.reshape(8, -1) / np.repeat(step, 32, 1)[:, :100].clip(1e-9)), -8, 7)
    plain = rounded * np.repeat(step, 32, 1)[:, :100]
    assert np.square(said - table).sum() < np.square(plain - table).sum()


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_a_gemm_is_taken_whichever_way_its_weights_lie_and_left_if_it_scales(transposed: int, alpha: float) -> None:
    weight, x = on_grid((12, 64), "onnx", 3), np.ones((2, 64), np.float32)
    stored = {"weight": weight if transposed else weight.T, "bias": np.arange(12, dtype=np.float32)}
    table = np.ones((4, 64), np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], transB=transposed, alpha=alpha),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "gemm",
            [helper.make_tensor_value_info("ids", TensorProto.INT32, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 12])],
            [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in {**stored, "table": table}.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    made = int4(model)
    assert ("MatMulNBits" in [node.op_type for node in made.graph.node]) == (alpha == 1.0)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"ids": np.array([1, 2], np.int32)})
    np.testing.assert_allclose(found, alpha * x @ weight.T + stored["bias"], rtol=0.01, atol=0.01)
