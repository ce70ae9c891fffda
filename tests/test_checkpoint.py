from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DistilBertConfig, DistilBertModel

from edgelm import checkpoint
from edgelm.errors import CheckpointError
from edgelm.recipe import Features


def logits_of(model: torch.nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs)  # type: ignore[no-any-return]


def test_a_compressed_checkpoint_comes_back_as_it_was_up_to_fp16(tmp_path: Path) -> None:
    model = tiny.encoder(heads=(4, 0, 3), ffn=(48, 16, 0))
    checkpoint.write(tmp_path, model, tiny.tokenizer_json())
    back = checkpoint.read(tmp_path)
    assert back.model.config == model.config
    assert back.tokenizer == tiny.tokenizer_json()
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor.half().float()), name


def test_strides_come_back_too_and_transformers_is_not_offered_them(tmp_path: Path) -> None:
    model = tiny.encoder(heads=(4, 4, 4), ffn=(16, 16, 16), strides=(1, 2, 1))
    checkpoint.write(tmp_path, model, tiny.tokenizer_json())
    back = checkpoint.read(tmp_path)
    assert back.model.config == model.config
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "edgelm"
    ids = tiny.ids(2, 9)
    found, expected = (logits_of(m, input_ids=ids, attention_mask=torch.ones_like(ids)) for m in (back.model, model))
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)
    with pytest.raises(CheckpointError, match="--pooling cls"):
        checkpoint.read(tmp_path, Features(pooling="mean"))


@pytest.mark.parametrize("strides", [[1, 2], [0, 1, 1], [1, 1, 2], ["two", 1, 1]])
def test_strides_that_cannot_be_are_refused(strides: list[object], tmp_path: Path) -> None:
    checkpoint.write(tmp_path, tiny.encoder(strides=(1, 2, 1)), tiny.tokenizer_json())
    with pytest.raises(CheckpointError, match=r"config\.json is not complete"):
        checkpoint.read(edit(tmp_path, strides=strides))


def test_a_uniform_checkpoint_is_a_plain_distilbert_that_transformers_loads(tmp_path: Path) -> None:
    model = tiny.encoder(heads=(4, 4), ffn=(16, 16))
    checkpoint.write(tmp_path, model, tiny.tokenizer_json())
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    batch = tokenizer(["turn the lights off", "play"], padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    expected = logits_of(theirs, input_ids=ids, attention_mask=mask).logits  # type: ignore[attr-defined]
    found = logits_of(checkpoint.read(tmp_path).model, input_ids=ids, attention_mask=mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert theirs.config.id2label == dict(enumerate(tiny.LABELS))


def test_a_ragged_checkpoint_does_not_pretend_to_be_a_distilbert(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, tiny.encoder(), tiny.tokenizer_json())
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["model_type"] == "edgelm"
    assert raw["n_heads"] == [4, 2, 3]


def test_labels_keep_their_index(tmp_path: Path) -> None:
    assert checkpoint.read(tiny.distilbert(tmp_path)).model.config.labels == tiny.LABELS


def edit(folder: Path, **changes: object) -> Path:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "gpt2"}, ["gpt2", "not supported", "distilbert"]),
        ({"model_type": None}, ["not supported"]),
        ({"architectures": ["DistilBertForMaskedLM"]}, ["weights are missing"]),
        ({"architectures": ["DistilBertForMultipleChoice"]}, ["not supported", "text-classification"]),
        ({"problem_type": "regression"}, ["regression"]),
        ({"activation": "relu"}, ["relu", "gelu"]),
        ({"hidden_dim": None}, ["config.json"]),
        ({"hidden_dim": 99}, ["weights"]),
    ],
)
def test_an_unsuitable_config_gets_one_line(changes: dict[str, object], words: list[str], tmp_path: Path) -> None:
    folder = edit(tiny.distilbert(tmp_path), **changes)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in [str(folder), *words])


@pytest.mark.parametrize("keep", [0, 5, 1000])
def test_truncated_weights_get_one_line(keep: int, tmp_path: Path) -> None:
    folder = tiny.distilbert(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        checkpoint.read(folder)
    assert "\n" not in str(caught.value)


def test_truncated_weights_of_a_compressed_checkpoint_get_one_line(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, tiny.encoder(), tiny.tokenizer_json())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoint.read(tmp_path / "nowhere")


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        checkpoint.read(tmp_path)


def test_a_bare_encoder_is_refused_rather_than_given_a_random_head(tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=50, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=16)
    DistilBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"weights are missing: classifier\.bias"):
        checkpoint.read(edit(tmp_path, architectures=["DistilBertForSequenceClassification"]))


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, tiny.encoder(), tiny.tokenizer_json())
    plain = tmp_path / "plain"
    plain.write_text("")  # with the mode that this process gives to any file
    assert {path.stat().st_mode for path in tmp_path.iterdir()} == {plain.stat().st_mode}
