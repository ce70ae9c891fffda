"""A tiny DistilBERT in Keras (KerasHub's implementation), as a file, a SavedModel and TFLite, against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_keras
import torch
from transformers import DistilBertForSequenceClassification

from edgelm.errors import CheckpointError, DataError
from edgelm.exporters import Report, foreign
from edgelm.exporters.companions import Companions, companions
from edgelm.exporters.foreign import Foreign
from edgelm.manifest import Precision
from edgelm.runtimes import Ids, engine

pytestmark = pytest.mark.slow  # for the import of TensorFlow

LENGTHS = (8, 16, 32)
ENGINES = {"onnx": "onnxruntime", "tflite": "litert"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_keras.checkpoint(tmp_path_factory.mktemp("keras") / "checkpoint")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    from edgelm.exporters import tensorflow  # first, since it keeps TensorFlow quiet

    assert tensorflow.PRECISIONS
    return tiny_keras.classifier(folder)


@pytest.fixture(scope="module")
def keras_file(model: Any, folder: Path) -> Path:
    path = folder.parent / "model" / "model.keras"
    tiny_keras.save(model, path, folder)
    return path


@pytest.fixture(scope="module")
def beside(keras_file: Path) -> Companions:
    return companions(keras_file)


@pytest.fixture(scope="module")
def imported(keras_file: Path, beside: Companions) -> Foreign:
    return foreign.read(keras_file, beside, (*LENGTHS, 128))


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return []


@pytest.fixture(scope="module")
def artifacts(imported: Foreign, reports: list[Report]) -> dict[tuple[str, Precision], bytes]:
    return {
        (form, precision): artifact
        for form in ("onnx", "tflite")
        for precision, artifact in imported.export(form, ("fp32", "int8-dynamic"), LENGTHS, tell=reports.append).items()
    }


@pytest.fixture(scope="module")
def rows() -> list[Ids]:
    return [tiny.ids(1, length, seed=length).numpy().astype(np.int32)[0] for length in (2, 5, 8, 9, 16, 31, 32)]


@pytest.fixture(scope="module")
def truth(folder: Path, rows: list[Ids]) -> list[Any]:
    """What transformers answers."""
    theirs = DistilBertForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        return [theirs(torch.from_numpy(row)[None].long()).logits.numpy() for row in rows]


def _run(form: str, artifact: bytes, rows: list[Ids]) -> Iterator[Any]:
    session = engine(ENGINES[form]).load(artifact, threads=1)
    for row in rows:
        yield session.run(row[None], np.ones_like(row)[None])
    session.close()


def test_what_tensorflow_answers_is_what_transformers_does(
    imported: Foreign, rows: list[Ids], truth: list[Any]
) -> None:
    assert np.abs(np.diff(np.concatenate(truth), axis=0)).max() > 0.5  # or any answer would do
    for row, expected in zip(rows, truth, strict=True):
        np.testing.assert_allclose(imported.logits(row[None]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ENGINES)
def test_fp32_gives_the_logits_of_transformers(
    form: str, artifacts: dict[Any, bytes], rows: list[Ids], truth: list[Any]
) -> None:
    for found, expected in zip(_run(form, artifacts[form, "fp32"], rows), truth, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ENGINES)
def test_int8_is_close_and_smaller(form: str, artifacts: dict[Any, bytes], rows: list[Ids], truth: list[Any]) -> None:
    found = np.concatenate(list(_run(form, artifacts[form, "int8-dynamic"], rows)))
    apart = np.abs(found - np.concatenate(truth))
    assert 1e-4 < apart.max() < 0.15 * np.abs(np.concatenate(truth)).max()


@pytest.mark.parametrize("form", ENGINES)
def test_rows_of_a_batch_may_be_padded(
    form: str, artifacts: dict[Any, bytes], rows: list[Ids], truth: list[Any]
) -> None:
    ids, mask = np.zeros((len(rows), 32), np.int32), np.zeros((len(rows), 32), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
    session = engine(ENGINES[form]).load(artifacts[form, "fp32"], threads=1)
    np.testing.assert_allclose(session.run(ids, mask), np.concatenate(truth), rtol=0, atol=1e-4)


def test_what_is_known_of_the_shape_is_found(imported: Foreign) -> None:
    config = imported.config
    assert (config.vocab_size, config.dim, config.heads, config.labels) == (tiny.vocab_size(), 32, (), tiny.LABELS)
    assert config.max_positions == 32  # of 8, 16, 32 and 128, since the model has 64 positions
    assert imported.lengths == ()


def test_reports_each_artifact(artifacts: dict[Any, bytes], reports: list[Report]) -> None:
    assert [(r.format, r.precision, r.bytes) for r in reports] == [(*key, len(a)) for key, a in artifacts.items()]


def test_there_is_one_signature_for_each_length(artifacts: dict[Any, bytes]) -> None:
    from edgelm.exporters.tflite_signatures import parsed, signatures

    for precision in ("fp32", "int8-dynamic"):
        found = signatures(parsed(artifacts["tflite", precision], "x"), "x")
        assert sorted(one.length for one in found) == list(LENGTHS)
        assert all(one.ours for one in found)


def test_a_saved_model_is_read_alike(
    model: Any, folder: Path, imported: Foreign, beside: Companions, tmp_path: Path
) -> None:
    tiny_keras.save(model, tmp_path / "saved", folder)
    found = foreign.read(tmp_path / "saved", beside, LENGTHS)
    assert found.config == imported.config
    row = tiny.ids(2, 9).numpy().astype(np.int32)
    np.testing.assert_allclose(found.logits(row), imported.logits(row), rtol=0, atol=1e-6)
    for form in ("onnx", "tflite"):
        artifact = found.export(form, ("fp32",), (16,))["fp32"]
        session = engine(ENGINES[form]).load(artifact, threads=1)
        np.testing.assert_allclose(session.run(row, np.ones_like(row)), imported.logits(row), rtol=0, atol=1e-4)


def test_a_model_of_one_length_pads_to_it(folder: Path, imported: Foreign, beside: Companions) -> None:
    from edgelm.exporters import tensorflow

    made = tiny_keras.classifier(folder, names=("input_ids", "attention_mask"), length=16)
    found = tensorflow.read(made, beside, LENGTHS)
    assert (found.lengths, found.config.max_positions) == ((16,), 16)
    row = tiny.ids(2, 9).numpy().astype(np.int32)
    np.testing.assert_allclose(found.logits(row), imported.logits(row), rtol=0, atol=1e-5)


class TestRefused:
    """Each with one line that says what was found and what to do."""

    def test_other_inputs(self, beside: Companions) -> None:
        import keras

        from edgelm.exporters import tensorflow

        image = keras.Input((8,), dtype="int32", name="image")
        model = keras.Model(image, keras.layers.Embedding(9, 3)(image)[:, 0])
        with pytest.raises(CheckpointError, match=r"expected the inputs input_ids/token_ids.*, found image"):
            tensorflow.read(model, beside, LENGTHS)

    def test_no_named_inputs(self, beside: Companions) -> None:
        import keras

        from edgelm.exporters import tensorflow

        with pytest.raises(CheckpointError, match="found none"):
            tensorflow.read(keras.Sequential([keras.layers.Dense(3)]), beside, LENGTHS)

    def test_probabilities(self, model: Any, beside: Companions) -> None:
        import keras

        from edgelm.exporters import tensorflow

        softened = keras.Model(model.input, keras.layers.Softmax()(model.output))
        with pytest.raises(CheckpointError, match="found probabilities"):
            tensorflow.read(softened, beside, LENGTHS)

    def test_labels_of_another_number(self, model: Any, beside: Companions) -> None:
        from edgelm.exporters import tensorflow

        with pytest.raises(DataError, match="its output has 3 classes, found 2 labels"):
            tensorflow.read(model, replace(beside, labels=("yes", "no")), LENGTHS)

    def test_a_tokenizer_with_more_ids_than_rows(self, model: Any, beside: Companions) -> None:
        from edgelm.exporters import tensorflow

        with pytest.raises(DataError, match=rf"ids up to 30000, but the embedding has {tiny.vocab_size()} rows"):
            tensorflow.read(model, replace(beside, vocab=30001), LENGTHS)

    def test_a_file_that_is_no_model(self, beside: Companions, tmp_path: Path) -> None:
        path = tmp_path / "model.keras"
        path.write_bytes(b"not a zip")
        with pytest.raises(CheckpointError, match="expected a Keras model"):
            foreign.read(path, beside, LENGTHS)

    def test_a_folder_that_is_no_saved_model(self, beside: Companions, tmp_path: Path) -> None:
        (tmp_path / "saved_model.pb").write_bytes(b"not a graph")
        with pytest.raises(CheckpointError, match="expected a SavedModel"):
            foreign.read(tmp_path, beside, LENGTHS)

    def test_lengths_that_are_all_too_long(self, model: Any, beside: Companions) -> None:
        from edgelm.exporters import tensorflow

        with pytest.raises(CheckpointError, match="does not run with 128 tokens"):
            tensorflow.read(model, beside, (128, 256))
