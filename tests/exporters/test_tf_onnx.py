"""What tf2onnx is told beside what it knows, against numpy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
import tiny_keras

from edgelm.errors import ExportFailed
from edgelm.runtimes import engine

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
pytestmark = pytest.mark.slow  # for the import of TensorFlow

WEIGHTS = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)


def _converted(compute: Callable[[Any, Any], Any]) -> Any:
    """ONNX of a function of the rows of a table, float32, shape (batch, tokens, 6), and the mask, the same."""
    tf = tiny_keras.tensorflow()
    from edgelm.exporters.tf_onnx import from_function

    @tf.function  # type: ignore[untyped-decorator]
    def call(input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        return {"logits": compute(tf.gather(WEIGHTS, input_ids), tf.cast(attention_mask, tf.float32))}

    return from_function(call)


def _ran(made: Any, ids: Any) -> Any:
    session = engine("onnxruntime").load(made.SerializeToString(), threads=1)
    return session.run(ids, np.ones_like(ids))


@pytest.fixture
def ids() -> Any:
    return np.random.default_rng(1).integers(0, 100, (3, 7), np.int32)


def test_the_exact_gelu_is_written_without_erfc(ids: Any) -> None:
    tf = tiny_keras.tensorflow()

    made = _converted(lambda x, mask: tf.reduce_sum(tf.nn.gelu(4 * x, approximate=False), 1))
    assert {node.op_type for node in made.graph.node} >= {"Erf"}
    x = 4 * WEIGHTS[ids].astype(np.float64)
    expected = (x * scipy.special.ndtr(x)).sum(1)
    np.testing.assert_allclose(_ran(made, ids), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("equation", "shape", "nodes"),
    [
        ("abc,cde->abde", (6, 2, 4), ["Gather", "MatMul", "Reshape"]),
        ("abc,cd->abd", (6, 5), ["Gather", "MatMul"]),
        ("abc,dc->abd", (5, 6), None),  # what tf2onnx makes of it
        ("abc,cb->ab", (6, 7), None),
    ],
)
def test_a_product_with_a_constant_is_a_matmul(
    equation: str, shape: tuple[int, ...], nodes: list[str] | None, ids: Any
) -> None:
    tf = tiny_keras.tensorflow()

    weight = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    made = _converted(lambda x, mask: tf.raw_ops.Einsum(inputs=[x, tf.constant(weight)], equation=equation))
    assert nodes is None or [node.op_type for node in made.graph.node] == nodes
    expected = np.einsum(equation, WEIGHTS[ids].astype(np.float64), weight)
    np.testing.assert_allclose(_ran(made, ids), expected, rtol=0, atol=1e-5)


def test_two_axes_that_are_summed_over_are_one_product(ids: Any) -> None:
    tf = tiny_keras.tensorflow()

    weight = np.random.default_rng(2).normal(size=(2, 3, 5)).astype(np.float32)
    made = _converted(
        lambda x, mask: tf.raw_ops.Einsum(
            inputs=[tf.reshape(x, (-1, tf.shape(x)[1], 2, 3)), tf.constant(weight)], equation="abcd,cde->abe"
        )
    )
    assert [node.op_type for node in made.graph.node][-2:] == ["Reshape", "MatMul"]
    expected = np.einsum("abcd,cde->abe", WEIGHTS[ids].reshape(3, 7, 2, 3).astype(np.float64), weight)
    np.testing.assert_allclose(_ran(made, ids), expected, rtol=0, atol=1e-5)


def test_an_operator_that_onnx_does_not_have_is_named(ids: Any) -> None:
    tf = tiny_keras.tensorflow()

    with pytest.raises(ExportFailed, match="operators that ONNX does not have: Igamma"):
        _converted(lambda x, mask: tf.reduce_sum(tf.math.igamma(tf.exp(x), tf.exp(x)), 1))
