from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgelm import build, recipe
from edgelm.errors import CheckpointError, DataError, MissingExtra
from edgelm.exporters.foreign import read, recognised
from edgelm.exporters.foreign.companions import Companions, companions
from edgelm.exporters.foreign.fit import meanings, output, tried
from edgelm.manifest import TaskName
from edgelm.runtimes import Ids, Logits

LABELS = ("yes", "no")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model, a tokenizer and labels."""
    (tmp_path / "model.keras").write_bytes(b"")
    (tmp_path / "tokenizer.json").write_bytes(tiny.tokenizer_json())
    _describe(tmp_path, "DistilBertForSequenceClassification")
    return tmp_path


def _describe(folder: Path, architecture: str, **more: str) -> None:
    described = {"architectures": [architecture], "id2label": {"1": "no", "0": "yes"}, **more}
    (folder / "config.json").write_text(json.dumps(described))


def test_tokenizer_and_labels_stand_beside_the_model(place: Path) -> None:
    expected = Companions(tiny.tokenizer_json(), tiny.vocab_size(), 0, None, "text-classification", LABELS)
    assert companions(place / "model.keras") == expected
    assert companions(place) == expected  # a SavedModel's own folder
    (place / "saved").mkdir()
    assert companions(place / "saved") == expected  # or the one that holds it


def test_config_says_what_the_model_is_for(place: Path) -> None:
    _describe(place, "DistilBertForSequenceClassification", problem_type="multi_label_classification")
    assert companions(place / "model.keras").multi_label
    _describe(place, "BertForTokenClassification")
    assert companions(place / "model.keras").task == "token-classification"
    _describe(place, "DistilBertForMaskedLM")
    found = companions(place / "model.keras")
    assert (found.task, found.labels, found.mask_token_id) == ("fill-mask", (), 4)


def test_what_is_given_counts_before_what_stands_beside(place: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("on\noff \n", encoding="utf-8")
    assert companions(place / "model.keras", labels=tmp_path / "labels.txt").labels == ("on", "off")
    (tmp_path / "other.json").write_text("no tokenizer")
    with pytest.raises(DataError, match=r"expected a tokenizer\.json"):
        companions(place / "model.keras", tokenizer=tmp_path / "other.json")


@pytest.mark.parametrize("content", ["", "one\n", "a\n\nb\n", "a\na\n", "\ufffe"])
def test_labels_are_two_or_more_none_blank_or_twice(content: str, place: Path) -> None:
    labels = place / "labels.txt"
    labels.write_bytes(content.encode("utf-16" if content == "\ufffe" else "utf-8"))
    with pytest.raises(DataError, match="one label a line"):
        companions(place / "model.keras", labels=labels)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_what_is_missing_is_named_with_its_option(name: str, place: Path) -> None:
    (place / name).unlink()
    with pytest.raises(DataError, match=rf"no {name} stands beside it: give .*--(tokenizer|labels) FILE"):
        companions(place / "model.keras")


def test_a_config_without_labels_is_refused(place: Path) -> None:
    for content in ("[]", "{", '{"architectures": ["BertForSequenceClassification"], "id2label": {"a": 1}}'):
        (place / "config.json").write_text(content)
        with pytest.raises(DataError, match="expected architectures and id2label"):
            companions(place / "model.keras")


def test_inputs_are_known_by_any_of_their_names() -> None:
    ours = ("attention_mask", "token_type_ids", "input_ids")
    assert meanings(ours, "x") == dict(zip(ours, ours, strict=True))
    assert meanings(("token_ids", "padding_mask"), "x") == {"token_ids": "input_ids", "padding_mask": "attention_mask"}
    assert meanings(("input_mask", "input_type_ids", "input_word_ids"), "x") == {
        "input_mask": "attention_mask",
        "input_type_ids": "token_type_ids",
        "input_word_ids": "input_ids",
    }
    wrong: list[tuple[str, ...]] = [
        ("input_ids",),
        ("input_ids", "token_ids", "attention_mask"),
        ("input_ids", "attention_mask", "lang"),
    ]
    for found in wrong:
        with pytest.raises(CheckpointError, match=f"found {', '.join(found)}$"):
            meanings(found, "x")


def test_the_output_is_the_only_one_or_the_one_of_its_name() -> None:
    assert output(["scores"], "logits", "x") == "scores"
    assert output(["hidden", "logits"], "logits", "x") == "logits"
    with pytest.raises(CheckpointError, match="expected one output, or one named logits; found a, b"):
        output(["a", "b"], "logits", "x")


def test_what_is_no_model_of_tensorflow_is_none(place: Path) -> None:
    assert recognised(place / "model.keras")
    assert not recognised(place)
    (place / "saved_model.pb").write_bytes(b"")
    assert recognised(str(place))
    with pytest.raises(CheckpointError, match=r"expected a \.keras or \.tflite file"):
        read(place / "config.json", companions(place), (16,))


def test_without_tensorflow_the_extra_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorflow", "keras"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("tensorflow", "foreign.tf_onnx"):
        monkeypatch.delitem(sys.modules, f"edgelm.exporters.{name}", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'edgelm\[tensorflow\]'") as raised:
        read(place / "model.keras", companions(place), (16,))
    assert raised.value.exit_code == 2


class TestTried:
    """What running a model says of it, or against it."""

    def tried(
        self, output: Logits, task: TaskName = "text-classification", labels: tuple[str, ...] = LABELS, most: int = 16
    ) -> tuple[int, ...]:
        def answer(input_ids: Ids, attention_mask: Ids) -> Logits:
            if input_ids.shape[1] > most or input_ids.max() > 100:
                raise ValueError("out of range")
            return output

        beside = Companions(b"", 101, 0, 4, task, labels)
        config, given, taken = tried(answer, beside, (8, 16, 32), "x")
        assert given.shape(2, 8) == (2, *output.shape[1:])
        assert (config.max_positions, config.heads, config.labels) == (taken[-1], (), labels)
        return taken

    def test_lengths_that_it_takes(self) -> None:
        assert self.tried(np.zeros((4, 2), np.float32)) == (8, 16)
        with pytest.raises(CheckpointError, match="x: does not run with 8 tokens: out of range"):
            self.tried(np.zeros((4, 2), np.float32), most=4)

    def test_a_tokenizer_with_more_ids_than_rows(self) -> None:
        def answer(input_ids: Ids, attention_mask: Ids) -> Logits:
            return np.stack([np.zeros((101, 2), np.float32)[ids].mean(0) for ids in input_ids])

        beside = Companions(b"", 102, 0, None, "text-classification", LABELS)
        with pytest.raises(DataError, match=r"does not take the tokenizer's last id, 101 \(index 101 .*give the token"):
            tried(answer, beside, (8,), "x")

    def test_probabilities_of_all_rows_but_not_of_some(self) -> None:
        self.tried(np.array([[0.25, 0.75], [0.5, 0.6], [0.5, 0.5], [0.5, 0.5]], np.float32))
        with pytest.raises(CheckpointError, match="found probabilities"):
            self.tried(np.full((4, 2), 0.5, np.float32))

    def test_an_output_of_another_shape_or_type(self) -> None:
        with pytest.raises(CheckpointError, match=r"expected of text-classification .* found float32, shape \(4, 8, 2"):
            self.tried(np.zeros((4, 8, 2), np.float32))
        with pytest.raises(CheckpointError, match=r"shape \(batch, tokens, …\); found float32, shape \(4, 2\)"):
            self.tried(np.zeros((4, 2), np.float32), "token-classification")
        with pytest.raises(CheckpointError, match="found float16"):
            self.tried(np.zeros((4, 2), np.float16))

    def test_classes_of_another_number(self) -> None:
        with pytest.raises(DataError, match="its output has 3 classes, found 2 labels"):
            self.tried(np.zeros((4, 3), np.float32))
        with pytest.raises(DataError, match="100 pieces, fewer than the tokenizer's 101"):
            self.tried(np.zeros((4, 8, 100), np.float32), "fill-mask", ())

    def test_every_task_has_its_shape(self) -> None:
        self.tried(np.zeros((4, 8, 2), np.float32), "question-answering", ())
        self.tried(np.zeros((4, 8, 101), np.float32), "fill-mask", ())
        self.tried(np.zeros((4, 32), np.float32), "feature-extraction", ())


def test_options_of_one_kind_of_source_are_refused_of_the_other(place: Path, tiny_checkpoint: Path) -> None:
    located = recipe.of(export={"device": "generic-x86_64"})
    with pytest.raises(DataError, match="tokenizer and labels are given for models of TensorFlow"):
        build.source(located.with_model(str(tiny_checkpoint)), labels=place / "labels.txt")
    vectors = recipe.of(export={"device": "generic-x86_64"}, features={"pooling": "mean"})
    with pytest.raises(DataError, match="pooling is chosen for checkpoints"):
        build.source(vectors.with_model(str(place / "model.keras")))
