"""A tiny DistilBERT in Keras (KerasHub's implementation), as a file, a SavedModel and TFLite, against transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import tiny_keras
import torch
from transformers import DistilBertForSequenceClassification

import edgelm
from edgelm import cli
from edgelm.bundle import Bundle
from edgelm.errors import CheckpointError, DataError, RecipeError
from edgelm.exporters import foreign
from edgelm.exporters.foreign import Imported
from edgelm.exporters.foreign.companions import Companions, companions
from edgelm.exporters.foreign.signatures import parsed, signatures
from edgelm.manifest import Format, Precision
from edgelm.runtimes import Ids, Logits, engine
from edgelm.text import Tokenizer

pytestmark = pytest.mark.slow  # for the import of TensorFlow

LENGTHS = (8, 32)
ENGINES: dict[Format, str] = {"onnx": "onnxruntime", "tflite": "litert"}
BOTH: tuple[Precision, ...] = ("fp32", "int8-dynamic")
Artifacts = dict[tuple[Format, Precision], bytes]


@pytest.fixture(scope="module")
def beside(keras_file: Path) -> Companions:
    return companions(keras_file)


@pytest.fixture(scope="module")
def imported(keras_file: Path, beside: Companions) -> Imported:
    return foreign.read(keras_file, beside, (*LENGTHS, 128))


@pytest.fixture(scope="module")
def bundle(keras_file: Path) -> Bundle:
    """Of the Keras model, by the command line, on its dev texts."""
    folder = keras_file.parent
    rows = [json.dumps({"text": text or "play it", "label": tiny.LABELS[i % 3]}) for i, text in enumerate(tiny.TEXTS)]
    (folder / "dev.jsonl").write_text("\n".join(rows), encoding="utf-8")
    out = folder / "keras.edgelm"
    command = ["export", keras_file, "--out", out, "--data", folder / "dev.jsonl", "--device", "generic-x86_64"]
    cli.app([*map(str, command), "--lengths", ",".join(map(str, (*LENGTHS, 128)))], standalone_mode=False)
    return Bundle(out)


@pytest.fixture(scope="module")
def artifacts(bundle: Bundle) -> Artifacts:
    return {(one.format, one.precision): bundle.read(one.file) for one in bundle.manifest.variants}


@pytest.fixture(scope="module")
def rows() -> list[Ids]:
    return [tiny.ids(1, length, seed=length).numpy().astype(np.int32)[0] for length in (2, 5, 8, 9, 16, 31, 32)]


@pytest.fixture(scope="module")
def truth(keras_checkpoint: Path, rows: list[Ids]) -> Logits:
    """What transformers answers."""
    theirs = DistilBertForSequenceClassification.from_pretrained(keras_checkpoint)
    with torch.no_grad():
        return np.concatenate([theirs(torch.from_numpy(row)[None].long()).logits.numpy() for row in rows])


def _run(form: Format, artifact: bytes, rows: list[Ids]) -> Logits:
    session = engine(ENGINES[form]).load(artifact, threads=1)
    return np.concatenate([session.run(row[None], np.ones_like(row)[None]) for row in rows])


def _padded(rows: list[Ids], length: int) -> tuple[Ids, Ids]:
    ids, mask = np.zeros((len(rows), length), np.int32), np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
    return ids, mask


def test_what_tensorflow_answers_is_what_transformers_does(imported: Imported, rows: list[Ids], truth: Logits) -> None:
    assert np.abs(np.diff(truth, axis=0)).max() > 0.2  # or any answer would do
    found = [imported.model.answer(row[None], np.ones_like(row)[None]) for row in rows]
    np.testing.assert_allclose(np.concatenate(found), truth, rtol=0, atol=1e-5)
    np.testing.assert_allclose(imported.model.answer(*_padded(rows, 40)), truth, rtol=0, atol=1e-5)


def test_the_bundle_says_how_close_it_is_and_answers_as_the_model(bundle: Bundle, imported: Imported) -> None:
    found = {(one.format, one.precision): one for one in bundle.manifest.variants}
    assert set(found) == {(form, precision) for form in ENGINES for precision in BOTH}
    for (form, precision), one in found.items():
        assert one.lengths == (LENGTHS if form == "tflite" else ())  # not 128, since the model has 64 positions
        assert 0 < one.parity.max_abs_diff < (1e-5 if precision == "fp32" else 0.2)
        assert one.parity.hostile_rows == 10
        assert one.score is not None
        assert one.score.n == len(tiny.TEXTS)
    model, base = bundle.manifest.model, bundle.manifest.baseline
    assert (model.heads, model.source, base.engine, base.precision) == ((), "model.keras", "tensorflow", "fp32")
    (ids,) = Tokenizer(imported.tokenizer, max_tokens=16, pad_token_id=0).encode(["play the music"])
    logits = imported.model.answer(ids[None], np.ones_like(ids)[None])[0]
    expected = dict(zip(tiny.LABELS, np.exp(logits) / np.exp(logits).sum(), strict=True))
    with edgelm.load(bundle.path, engine="onnxruntime", precision="fp32") as loaded:
        answers: Any = loaded("play the music", top_k=None)
    assert {one["label"]: pytest.approx(one["score"], abs=1e-5) for one in answers} == expected


@pytest.mark.parametrize("form", ENGINES)
def test_fp32_gives_the_logits_of_transformers(
    form: Format, artifacts: Artifacts, rows: list[Ids], truth: Logits
) -> None:
    np.testing.assert_allclose(_run(form, artifacts[form, "fp32"], rows), truth, rtol=0, atol=1e-5)
    session = engine(ENGINES[form]).load(artifacts[form, "fp32"], threads=1)
    np.testing.assert_allclose(session.run(*_padded(rows, 32)), truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ENGINES)
def test_int8_is_close(form: Format, artifacts: Artifacts, rows: list[Ids], truth: Logits) -> None:
    apart = np.abs(_run(form, artifacts[form, "int8-dynamic"], rows) - truth)
    assert 1e-4 < apart.max() < 0.1 * np.abs(truth).max()


def test_every_matrix_is_in_int8(artifacts: Artifacts) -> None:
    graph = onnx.load_from_string(artifacts["onnx", "int8-dynamic"]).graph
    floats = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    assert [list(tensor.dims) for tensor in floats if min(tensor.dims) > 1] == [[64, 32]]  # positions, as in ours
    products = [node.op_type for node in graph.node]
    assert products.count("MatMulInteger") == 8  # 4 of attention, 2 of the FFN, 2 of the head
    assert "Einsum" not in products


def test_int8_tflite_becomes_int8_onnx(
    artifacts: Artifacts, beside: Companions, rows: list[Ids], truth: Logits, tmp_path: Path
) -> None:
    (tmp_path / "model.tflite").write_bytes(artifacts["tflite", "int8-dynamic"])
    found = foreign.read(tmp_path / "model.tflite", beside, (16,))
    assert (found.lengths, found.precision) == (LENGTHS, "int8-dynamic")
    assert found.model.can == {"tflite": ("int8-dynamic",), "onnx": ("int8-dynamic",)}
    artifact = found.model.export("onnx", ("int8-dynamic",), found.lengths)["int8-dynamic"]
    apart = np.abs(_run("onnx", artifact, rows) - truth)
    assert 1e-4 < apart.max() < 0.1 * np.abs(truth).max()


def test_there_is_one_signature_for_each_length(artifacts: Artifacts) -> None:
    for precision in BOTH:
        found = signatures(parsed(artifacts["tflite", precision], "x"))
        assert {one.key for one in found} == {f"tokens_{length}" for length in LENGTHS}
        assert all(set(one.inputs) == {"input_ids", "attention_mask"} for one in found)


def test_what_is_known_of_the_model_is_found(imported: Imported, keras_model: Any, keras_file: Path) -> None:
    config = imported.model.config
    assert (config.vocab_size, config.heads, config.labels) == (tiny.vocab_size(), (), tiny.LABELS)
    assert imported.lengths == LENGTHS  # not 128, since the model has 64 positions
    assert imported.bytes == keras_file.stat().st_size
    assert imported.model.weights.numel() == keras_model.count_params()


def test_what_cannot_be_written_is_refused(imported: Imported) -> None:
    with pytest.raises(RecipeError, match="onnx is not written as int8-static: expected one of fp32, fp16"):
        imported.model.export("onnx", ("int8-static",), LENGTHS)


def test_a_saved_model_of_one_length_that_labels_tokens(
    keras_checkpoint: Path, beside: Companions, rows: list[Ids], tmp_path: Path
) -> None:
    made = tiny_keras.classifier(keras_checkpoint, ("input_ids", "attention_mask"), length=16, by_token=True)
    tiny_keras.save(made, tmp_path / "saved", keras_checkpoint)
    found = foreign.read(tmp_path / "saved", replace(beside, task="token-classification"), LENGTHS)
    assert (found.lengths, found.max_tokens) == ((16,), 16)
    assert found.model.weights.numel() == made.count_params()
    ids, mask = _padded(rows[:4], 9)
    free = tiny_keras.classifier(keras_checkpoint, by_token=True)
    expected = free({"token_ids": ids, "padding_mask": mask}, training=False).numpy()
    np.testing.assert_allclose(found.model.answer(ids, mask), expected, rtol=0, atol=1e-5)
    for form, by in ENGINES.items():
        session = engine(by).load(found.model.export(form, ("fp32",), (16,))["fp32"], threads=1)
        written = session.run(ids, mask)
        np.testing.assert_allclose(written[mask == 1], expected[mask == 1], rtol=0, atol=1e-5)


class TestRefused:
    """Each with one line that says what was found and what to do."""

    def test_other_inputs(self, keras_model: Any, beside: Companions) -> None:
        import keras

        from edgelm.exporters import tensorflow

        image = keras.Input((8,), dtype="int32", name="image")
        model = keras.Model(image, keras.layers.Embedding(9, 3)(image)[:, 0])
        with pytest.raises(CheckpointError, match=r"expected the inputs input_ids/token_ids.*, found image"):
            tensorflow.read(model, beside, LENGTHS)
        with pytest.raises(CheckpointError, match="found none"):
            tensorflow.read(keras.Sequential([keras.layers.Dense(3)]), beside, LENGTHS)

    def test_probabilities(self, keras_model: Any, beside: Companions) -> None:
        import keras

        from edgelm.exporters import tensorflow

        softened = keras.Model(keras_model.input, keras.layers.Softmax()(keras_model.output))
        with pytest.raises(CheckpointError, match="found probabilities"):
            tensorflow.read(softened, beside, LENGTHS)

    def test_a_tokenizer_with_more_ids_than_rows(self, keras_model: Any, beside: Companions) -> None:
        from edgelm.exporters import tensorflow

        with pytest.raises(DataError, match=f"does not take the tokenizer's last id, {tiny.vocab_size()}"):
            tensorflow.read(keras_model, replace(beside, vocab=tiny.vocab_size() + 1), LENGTHS)

    def test_lengths_that_are_all_too_long(self, keras_model: Any, beside: Companions) -> None:
        from edgelm.exporters import tensorflow

        with pytest.raises(CheckpointError, match="does not run with 128 tokens"):
            tensorflow.read(keras_model, beside, (128, 256))

    def test_a_folder_that_is_no_saved_model(self, tensorflow: Any, beside: Companions, tmp_path: Path) -> None:
        (tmp_path / "saved_model.pb").write_bytes(b"not a graph")
        with pytest.raises(CheckpointError, match="expected a SavedModel"):
            foreign.read(tmp_path, beside, LENGTHS)
