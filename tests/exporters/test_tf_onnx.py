"""What tf2onnx is told beside what it knows, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

from edgelm.errors import ExportFailed
from edgelm.runtimes import engine

pytestmark = pytest.mark.slow  # for the import of TensorFlow

WEIGHTS = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
IDS = np.random.default_rng(1).integers(0, 100, (3, 7), np.int32)

Convert = Callable[[Callable[[Any], Any]], Any]


@pytest.fixture
def converted(tensorflow: Any) -> Convert:
    """ONNX of a function of the rows of a table, float32, shape (batch, tokens, 6)."""
    from edgelm.exporters.foreign.tf_onnx import from_function

    def convert(compute: Callable[[Any], Any]) -> Any:
        @tensorflow.function  # type: ignore[untyped-decorator]
        def call(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
            return {"logits": compute(tensorflow.gather(WEIGHTS, input_ids))}

        return from_function(call)

    return convert


def _ran(made: Any) -> Any:
    return engine("onnxruntime").load(made.SerializeToString(), threads=1).run(IDS, np.ones_like(IDS))


def test_the_exact_gelu_is_written_without_erfc(converted: Convert, tensorflow: Any) -> None:
    made = converted(lambda x: tensorflow.reduce_sum(tensorflow.nn.gelu(4 * x, approximate=False), 1))
    assert {node.op_type for node in made.graph.node} >= {"Erf"}
    x = 4 * WEIGHTS[IDS].astype(np.float64)
    np.testing.assert_allclose(_ran(made), (x * scipy.special.ndtr(x)).sum(1), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("equation", "split", "shape", "nodes"),
    [
        ("abc,cde->abde", (6,), (6, 2, 4), ["Gather", "MatMul", "Reshape"]),
        ("abcd,cde->abe", (2, 3), (2, 3, 5), ["Reshape", "MatMul"]),
        ("abc,dc->abd", (6,), (5, 6), None),  # what tf2onnx makes of it
        ("abc,cb->ab", (6,), (6, 7), None),
    ],
)
def test_a_product_with_a_constant_is_a_matmul(
    equation: str,
    split: tuple[int, ...],
    shape: tuple[int, ...],
    nodes: list[str] | None,
    converted: Convert,
    tensorflow: Any,
) -> None:
    tf, weight = tensorflow, np.random.default_rng(2).normal(size=shape).astype(np.float32)

    def compute(x: Any) -> Any:
        if len(split) > 1:
            x = tf.reshape(x, (-1, tf.shape(x)[1], *split))
        return tf.raw_ops.Einsum(inputs=[x, tf.constant(weight)], equation=equation)

    made = converted(compute)
    assert nodes is None or [node.op_type for node in made.graph.node][-len(nodes) :] == nodes
    expected = np.einsum(equation, WEIGHTS[IDS].reshape(3, 7, *split).astype(np.float64), weight)
    np.testing.assert_allclose(_ran(made), expected, rtol=0, atol=1e-5)


def test_an_operator_that_onnx_does_not_have_is_named(converted: Convert, tensorflow: Any) -> None:
    tf = tensorflow
    with pytest.raises(ExportFailed, match="operators that ONNX does not have: Igamma"):
        converted(lambda x: tf.reduce_sum(tf.math.igamma(tf.exp(x), tf.exp(x)), 1))
