from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgelm import devices
from edgelm.errors import CheckpointError, DataError, MissingExtra, RecipeError
from edgelm.exporters.companions import Companions, companions
from edgelm.exporters.foreign import meanings, narrowed, read, recognised, shape
from edgelm.manifest import Format, Precision
from edgelm.recipe import Export

LABELS = ("yes", "no")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model, a tokenizer and labels."""
    (tmp_path / "model.keras").write_bytes(b"")
    (tmp_path / "tokenizer.json").write_bytes(tiny.tokenizer_json())
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"1": "no", "0": "yes"}}))
    return tmp_path


def test_tokenizer_and_labels_stand_beside_the_model(place: Path) -> None:
    expected = Companions(tiny.tokenizer_json(), tiny.vocab_size(), 0, LABELS)
    assert companions(place / "model.keras") == expected
    assert companions(place) == expected  # a SavedModel's own folder
    (place / "saved").mkdir()
    assert companions(place / "saved") == expected  # or the one that holds it


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
    with pytest.raises(DataError, match=rf"no {name}.* stands beside it: give .*--(tokenizer|labels) FILE"):
        companions(place / "model.keras")


def test_a_config_without_labels_is_refused(place: Path) -> None:
    for content in ("[]", "{", '{"id2label": {"a": 1}}'):
        (place / "config.json").write_text(content)
        with pytest.raises(DataError, match="expected id2label"):
            companions(place / "model.keras")


def test_inputs_are_known_by_any_of_their_names() -> None:
    for names in (("token_ids", "padding_mask"), ("attention_mask", "token_type_ids", "input_ids")):
        assert {"input_ids", "attention_mask"} <= set(meanings(names, "x").values())
    wrong: list[tuple[str, ...]] = [
        ("input_ids",),
        ("input_ids", "token_ids", "attention_mask"),
        ("input_ids", "attention_mask", "lang"),
    ]
    for found in wrong:
        with pytest.raises(CheckpointError, match=f"found {', '.join(found)}$"):
            meanings(found, "x")


def test_what_is_no_model_of_tensorflow_is_none(place: Path) -> None:
    assert recognised(place / "model.keras")
    assert not recognised(place)
    (place / "saved_model.pb").write_bytes(b"")
    assert recognised(str(place))
    beside = companions(place)
    with pytest.raises(CheckpointError, match=r"expected a \.keras or \.tflite file"):
        read(place / "config.json", beside, (16,))


def test_without_tensorflow_the_extra_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.delitem(sys.modules, "edgelm.exporters.tensorflow", raising=False)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgelm\[tensorflow\]'"):
        read(place / "model.keras", companions(place), (16,))


def test_logits_of_some_rows_may_sum_to_one_but_not_of_all() -> None:
    beside = Companions(b"", 5, 0, LABELS)
    assert shape("x", beside, np.array([[0.25, 0.75], [0.5, 0.6]], np.float32), (7, 4), 16).vocab_size == 7
    with pytest.raises(CheckpointError, match="found probabilities"):
        shape("x", beside, np.array([[0.25, 0.75], [0.5, 0.5]], np.float32), None, 16)
    with pytest.raises(CheckpointError, match=r"found float32, shape \(2, 3, 2\)"):
        shape("x", beside, np.zeros((2, 3, 2), np.float32), None, 16)


def test_of_what_a_device_prefers_only_what_can_be_made_is_written() -> None:
    can: dict[Format, tuple[Precision, ...]] = {"onnx": ("fp32", "int8-dynamic"), "tflite": ("fp32",)}
    device = devices.load("generic-x86_64")
    assert narrowed(can, ("tflite",), Export(device="x"), device, "m") == {"tflite": ("fp32",)}
    both = narrowed(can, ("onnx", "tflite"), Export(device="x"), device, "m")
    assert both == {"onnx": ("fp32", "int8-dynamic"), "tflite": ("fp32",)}
    asked = Export(device="x", formats=("tflite",), precisions=("int8-dynamic",))
    with pytest.raises(RecipeError, match="m: of it, tflite is written as fp32, not as int8-dynamic"):
        narrowed(can, ("tflite",), asked, device, "m")
