"""A tiny DistilBERT in Keras (KerasHub's implementation), as a file, a SavedModel and TFLite, against transformers."""

from __future__ import annotations

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

from edgelm.errors import CheckpointError, DataError, RecipeError
from edgelm.exporters import Report, foreign
from edgelm.exporters.companions import Companions, companions
from edgelm.exporters.foreign import Imported
from edgelm.exporters.tflite_signatures import parsed, signatures
from edgelm.manifest import Format, Precision
from edgelm.runtimes import Ids, Logits, engine

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
def reports() -> list[Report]:
    return []


@pytest.fixture(scope="module")
def artifacts(imported: Imported, reports: list[Report]) -> Artifacts:
    return {
        (form, precision): artifact
        for form in ENGINES
        for precision, artifact in imported.model.export(form, BOTH, LENGTHS, tell=reports.append).items()
    }


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


def test_reports_each_artifact(artifacts: Artifacts, reports: list[Report]) -> None:
    assert [(r.format, r.precision, r.bytes) for r in reports] == [(*key, len(a)) for key, a in artifacts.items()]


def test_what_cannot_be_written_is_refused(imported: Imported) -> None:
    with pytest.raises(RecipeError, match="onnx is not written as int8-static: expected one of fp32, int8-dynamic"):
        imported.model.export("onnx", ("int8-static",), LENGTHS)


def test_a_saved_model_is_read_alike(
    keras_model: Any, keras_checkpoint: Path, imported: Imported, beside: Companions, tmp_path: Path
) -> None:
    tiny_keras.save(keras_model, tmp_path / "saved", keras_checkpoint)
    found = foreign.read(tmp_path / "saved", beside, LENGTHS)
    assert found.model.config == imported.model.config
    assert found.model.weights.numel() == imported.model.weights.numel()
    ids, mask = _padded([tiny.ids(1, 9).numpy().astype(np.int32)[0]] * 2, 12)
    expected = imported.model.answer(ids, mask)
    np.testing.assert_allclose(found.model.answer(ids, mask), expected, rtol=0, atol=1e-6)
    for form, by in ENGINES.items():
        session = engine(by).load(found.model.export(form, ("fp32",), (16,))["fp32"], threads=1)
        np.testing.assert_allclose(session.run(ids, mask), expected, rtol=0, atol=1e-5)


def test_a_model_of_one_length_that_labels_tokens(keras_checkpoint: Path, beside: Companions, rows: list[Ids]) -> None:
    from edgelm.exporters import tensorflow

    free = tiny_keras.classifier(keras_checkpoint, by_token=True)
    made = tiny_keras.classifier(keras_checkpoint, ("input_ids", "attention_mask"), length=16, by_token=True)
    tokens = replace(beside, task="token-classification")
    found = tensorflow.read(made, tokens, LENGTHS)
    assert (found.lengths, found.max_tokens) == ((16,), 16)
    ids, mask = _padded(rows[:4], 9)
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
