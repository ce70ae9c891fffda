"""Bare TFLite models: those of edgelm itself, and small ones with other signatures than edgelm's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_keras

from edgelm import devices
from edgelm.errors import CheckpointError, RecipeError
from edgelm.exporters import exporter, foreign
from edgelm.exporters.companions import Companions
from edgelm.manifest import Precision
from edgelm.model import Encoder
from edgelm.recipe import Export
from edgelm.runtimes import Ids, engine

LENGTHS = (8, 16)
LABELS = ("a", "b", "c")
TABLE = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
HEAD = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
TYPES = np.random.default_rng(2).normal(size=(2, 16)).astype(np.float32)

pytestmark = pytest.mark.slow  # for the import of TensorFlow


@pytest.fixture(scope="module")
def beside() -> Companions:
    return Companions(tiny.tokenizer_json(), tiny.vocab_size(), 0, LABELS)


def _expected(ids: Ids, typed: bool) -> Any:
    """The mean of the rows of the table, by numpy; token types are 0."""
    return (TABLE[ids].astype(np.float64).mean(1) + (TYPES[0] if typed else 0.0)) @ HEAD


def _tflite(names: dict[str, Any], length: int | None, *, signed: bool = True, batch: int | None = 1) -> bytes:
    """A classifier of the mean of its tokens, with inputs of these names and types, by TensorFlow's converter."""
    from edgelm.exporters.quiet import mute

    tf = tiny_keras.tensorflow()

    @tf.function(input_signature=[tf.TensorSpec((batch, length), t, name=name) for name, t in names.items()])  # type: ignore[untyped-decorator]
    def call(ids: Any, mask: Any, types: Any = None) -> dict[str, Any]:
        weight = tf.cast(mask, tf.float32)[:, :, None]
        mean = tf.reduce_sum(tf.gather(TABLE, ids) * weight, 1) / tf.reduce_sum(weight, 1)
        if types is not None:
            mean += tf.gather(TYPES, types)[:, 0]
        return {"scores": tf.matmul(mean, HEAD)}

    with mute():
        made = call.get_concrete_function()
        content: bytes = tf.lite.TFLiteConverter.from_concrete_functions([made], tf.Module()).convert()
    if signed:
        return content
    from ai_edge_litert.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    model.signatureDefs = []
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _read(content: bytes, beside: Companions, tmp_path: Path) -> foreign.Foreign:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return foreign.read(path, beside, LENGTHS)


INT32 = {"input_ids": "int32", "attention_mask": "int32"}
OTHERS = {
    "one length": (INT32, 16),
    "any length": (INT32, None),
    "KerasHub": ({"token_ids": "int32", "padding_mask": "bool"}, 16),
    "int64 and token types": (dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), "int64"), 16),
    "token types of any length": (dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), "int32"), None),
}


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize("case", OTHERS)
def test_other_signatures_are_adapted_and_give_the_same_logits(
    case: str, signed: bool, beside: Companions, tmp_path: Path
) -> None:
    names, length = OTHERS[case]
    found = _read(_tflite(names, length, signed=signed), beside, tmp_path)
    lengths, typed = (length,) if length else LENGTHS, len(names) > 2
    assert found.lengths == ((length,) if length else ())
    assert (found.config.vocab_size, found.config.dim) == TABLE.shape
    artifacts = {form: found.export(form, ("fp32",), lengths)["fp32"] for form in ("tflite", "onnx")}
    rows = [tiny.ids(1, n, seed=n).numpy().astype(np.int32) for n in (2, 7, 8, 9, 16)]
    for form, artifact in artifacts.items():
        session = engine(exporter(form).ENGINE).load(artifact, threads=1)
        for ids in rows:
            np.testing.assert_allclose(found.logits(ids), _expected(ids, typed), rtol=0, atol=1e-5)
            np.testing.assert_allclose(session.run(ids, np.ones_like(ids)), _expected(ids, typed), rtol=0, atol=1e-5)
        padded, mask = np.zeros((2, 9), np.int32), np.zeros((2, 9), np.int32)
        for row, ids in enumerate((rows[1], rows[3])):
            padded[row, : ids.shape[1]], mask[row, : ids.shape[1]] = ids[0], 1
        expected = np.concatenate([_expected(rows[1], typed), _expected(rows[3], typed)])
        np.testing.assert_allclose(session.run(padded, mask), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_our_own_artifact_goes_in_as_it_is(
    precision: Precision, artifacts: dict[Any, bytes], model: Encoder, tmp_path: Path
) -> None:
    ours = Companions(tiny.tokenizer_json(), 100, 0, model.config.labels)
    content = artifacts["tflite", precision]
    found = _read(content, ours, tmp_path)
    assert found.lengths == (8, 16, 32, 64)
    assert (found.config.vocab_size, found.config.dim) == (20_000, 64)
    wanted = Export(device="generic-x86_64")
    assert found.plan(wanted, devices.load("generic-x86_64")) == {"tflite": (precision,)}
    assert found.export("tflite", (precision,), found.lengths) == {precision: content}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"image": "float32", "attention_mask": "int32"}, "found attention_mask, image"),
        ({"input_ids": "float32", "attention_mask": "int32"}, "expected int32 or int64 inputs"),
    ],
)
def test_other_inputs_are_refused(names: dict[str, Any], words: str, beside: Companions, tmp_path: Path) -> None:
    from edgelm.exporters.quiet import mute

    tf = tiny_keras.tensorflow()

    @tf.function(input_signature=[tf.TensorSpec((1, 8), t, name=name) for name, t in names.items()])  # type: ignore[untyped-decorator]
    def call(one: Any, other: Any) -> Any:
        return tf.cast(one, tf.float32) * tf.cast(other, tf.float32)

    with mute():
        content = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()], tf.Module()).convert()
    with pytest.raises(CheckpointError, match=words):
        _read(content, beside, tmp_path)


def test_a_batch_of_more_than_one_is_refused(beside: Companions, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected inputs of shape \[1, tokens\], found"):
        _read(_tflite(INT32, 16, batch=2), beside, tmp_path)


def test_what_the_file_is_not_in_is_not_written(artifacts: dict[Any, bytes], model: Encoder, tmp_path: Path) -> None:
    ours = Companions(tiny.tokenizer_json(), 100, 0, model.config.labels)
    found = _read(artifacts["tflite", "fp32"], ours, tmp_path)
    wanted = Export(device="generic-x86_64", precisions=("int8-dynamic",))
    with pytest.raises(RecipeError, match="tflite is written as fp32, not as int8-dynamic"):
        found.plan(wanted, devices.load("generic-x86_64"))


def test_a_file_that_is_no_model_is_refused(beside: Companions, tmp_path: Path) -> None:
    for content in (b"", b"not a model", b"\x1c\x00\x00\x00TFL3" + bytes(40)):
        with pytest.raises(CheckpointError, match="expected a TFLite model that LiteRT loads"):
            _read(content, beside, tmp_path)
