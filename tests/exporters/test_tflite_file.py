"""Bare TFLite models: those of edgelm itself, and small ones with other signatures than edgelm's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgelm.errors import CheckpointError, DataError, RecipeError
from edgelm.exporters import exporter, foreign
from edgelm.exporters.foreign import Imported
from edgelm.exporters.foreign.companions import Companions
from edgelm.exporters.foreign.signatures import parsed
from edgelm.exporters.quiet import mute
from edgelm.exporters.tflite_graph import inline
from edgelm.manifest import Precision
from edgelm.model import Encoder
from edgelm.runtimes import Ids, engine

LENGTHS = (8, 16)
LABELS = ("a", "b", "c")
TABLE = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
HEAD = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
TYPES = np.random.default_rng(2).normal(size=(2, 16)).astype(np.float32)

INT32 = {"input_ids": "int32", "attention_mask": "int32"}
CASES = {
    "one length": (INT32, 16),
    "KerasHub, any length": ({"token_ids": "int32", "padding_mask": "bool"}, None),
    "int64 and token types": (dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), "int64"), 16),
    "token types of any length": (dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), "int32"), None),
}
Make = Callable[..., bytes]


def _beside(vocab: int = tiny.vocab_size(), **changes: Any) -> Companions:
    return Companions(tiny.tokenizer_json(), vocab, 0, None, changes.get("task", "text-classification"), LABELS)


def _expected(ids: Ids, typed: bool, by_token: bool = False) -> Any:
    """The mean of the rows of the table, by numpy, on a classifier; token types are 0."""
    mean = TABLE[ids].astype(np.float64).mean(1) + (TYPES[0] if typed else 0.0)
    return (mean[:, None] + TABLE[ids] if by_token else mean) @ HEAD


@pytest.fixture(scope="module")
def tflite(tensorflow: Any) -> Make:
    """Makes what ``_expected`` computes, with inputs of these names and types, by TensorFlow's converter."""
    tf = tensorflow

    def make(
        names: dict[str, str], length: int | None, batch: int | None = 1, by_token: bool = False, half: bool = False
    ) -> bytes:
        @tf.function(input_signature=[tf.TensorSpec((batch, length), t, name=name) for name, t in names.items()])  # type: ignore[untyped-decorator]
        def call(ids: Any, mask: Any, types: Any = None) -> dict[str, Any]:
            weight = tf.cast(mask, tf.float32)[:, :, None]
            words = tf.gather(TABLE, tf.cast(ids, tf.int32))
            mean = tf.reduce_sum(words * weight, 1, keepdims=True) / tf.reduce_sum(weight, 1, keepdims=True)
            if types is not None:
                mean += tf.gather(TYPES, types)[:, :1]
            out = tf.matmul(tf.reshape(mean + words if by_token else mean, (-1, 16)), HEAD)
            return {"scores": tf.reshape(out, (1, -1, 3)) if by_token else out}

        with mute():
            made = [call.get_concrete_function()]
            converter = tf.lite.TFLiteConverter.from_concrete_functions(made, tf.Module())
            if half:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
                converter.target_spec.supported_types = [tf.float16]
            return bytes(converter.convert())

    return make


def _read(content: bytes, beside: Companions, tmp_path: Path) -> Imported:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return foreign.read(path, beside, LENGTHS)


def _rows() -> list[Ids]:
    return [tiny.ids(1, n, seed=n).numpy().astype(np.int32) for n in (2, 7, 8, 9, 16)]


@pytest.mark.slow  # for the import of TensorFlow
@pytest.mark.parametrize("case", CASES)
def test_other_signatures_are_adapted_and_give_the_same_logits(case: str, tflite: Make, tmp_path: Path) -> None:
    names, length = CASES[case]
    content = tflite(names, length)
    if case == "one length":  # and no signature at all
        model = parsed(content, "x")
        model.signatureDefs = []
        content = inline(model)
    found = _read(content, _beside(), tmp_path)
    typed = len(names) > 2
    assert found.lengths == ((length,) if length else LENGTHS)
    for form in ("tflite", "onnx"):
        artifact = found.model.export(form, ("fp32",), found.lengths)["fp32"]
        session = engine(exporter(form).ENGINE).load(artifact, threads=1)
        for ids in _rows():
            expected = _expected(ids, typed)
            np.testing.assert_allclose(found.model.answer(ids, np.ones_like(ids)), expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(session.run(ids, np.ones_like(ids)), expected, rtol=0, atol=1e-5)
        padded, mask = np.zeros((2, 9), np.int32), np.zeros((2, 9), np.int32)
        for row, ids in enumerate((_rows()[1], _rows()[3])):
            padded[row, : ids.shape[1]], mask[row, : ids.shape[1]] = ids[0], 1
        both = np.concatenate([_expected(ids, typed) for ids in (_rows()[1], _rows()[3])])
        np.testing.assert_allclose(session.run(padded, mask), both, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_tokens_are_labelled_too(tflite: Make, tmp_path: Path) -> None:
    found = _read(tflite(INT32, 16, by_token=True), _beside(task="token-classification"), tmp_path)
    for form in ("tflite", "onnx"):
        session = engine(exporter(form).ENGINE).load(found.model.export(form, ("fp32",), (16,))["fp32"], threads=1)
        for ids in _rows():
            expected = _expected(ids, typed=False, by_token=True)
            np.testing.assert_allclose(found.model.answer(ids, np.ones_like(ids)), expected, rtol=0, atol=1e-5)
            np.testing.assert_allclose(session.run(ids, np.ones_like(ids)), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_other_inputs_are_refused(tflite: Make, tensorflow: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected inputs of shape \[1, tokens\], found"):
        _read(tflite(INT32, 16, batch=2), _beside(), tmp_path)
    with pytest.raises(CheckpointError, match="found attention_mask, pixels"):
        _read(tflite({"pixels": "int32", "attention_mask": "int32"}, 16), _beside(), tmp_path)
    with pytest.raises(CheckpointError, match="expected int32 or int64 inputs, found another type of input_ids"):
        _read(tflite({"input_ids": "float32", "attention_mask": "int32"}, 16), _beside(), tmp_path)


@pytest.mark.slow
def test_weights_of_other_types_are_refused(tflite: Make, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected weights in float32 or int8, .* found weights in float16"):
        _read(tflite(INT32, 16, half=True), _beside(), tmp_path)


@pytest.mark.slow
def test_a_tokenizer_with_more_ids_than_rows_is_refused(tflite: Make, tmp_path: Path) -> None:
    _read(tflite(INT32, 16), _beside(len(TABLE)), tmp_path)
    with pytest.raises(DataError, match=r"does not take the tokenizer's last id, 200 .*: give the tokenizer"):
        _read(tflite(INT32, 16), _beside(len(TABLE) + 1), tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_our_own_artifact_goes_in_as_it_is(
    precision: Precision, artifacts: dict[Any, bytes], model: Encoder, rows: list[Ids], tmp_path: Path
) -> None:
    content = artifacts["tflite", precision]
    found = _read(content, _beside(20_000), tmp_path)
    can = foreign.PRECISIONS["tflite"] if precision == "fp32" else (precision,)
    assert (found.lengths, found.bytes, found.model.can["tflite"]) == ((8, 16, 32, 64), len(content), can)
    assert found.model.export("tflite", (precision,), found.lengths) == {precision: content}
    session = engine("litert").load(content, threads=1)
    for row in rows[:8]:
        given = row[None], np.ones_like(row)[None]
        np.testing.assert_array_equal(found.model.answer(*given), session.run(*given))
    with pytest.raises(DataError, match="does not take the tokenizer's last id, 20000"):
        _read(content, _beside(20_001), tmp_path)
    said = "is calibrated on real" if precision == "fp32" else f"tflite is not written .*: expected one of {precision}"
    with pytest.raises(RecipeError, match=said):
        found.model.export("tflite", ("int8-static",), found.lengths)


def test_a_file_that_is_no_model_is_refused(artifacts: dict[Any, bytes], tmp_path: Path) -> None:
    whole = artifacts["tflite", "fp32"]
    for content in (b"", b"not a model", b"\x1c\x00\x00\x00TFL3" + bytes(40), whole[: len(whole) // 2]):
        with pytest.raises(CheckpointError, match="expected a TFLite model that LiteRT loads"):
            _read(content, _beside(), tmp_path)
