from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers

from edgelm import checkpoint
from edgelm.errors import CheckpointError
from edgelm.recipe import Features
from edgelm.text import Tokenizer

KINDS = ("distilbert", "bert", "roberta")
CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "fill-mask": "AutoModelForMaskedLM",
    "feature-extraction": "AutoModel",
}
PAIR = ("what is the time", "turn the lights off in paris, it is time")


def theirs(folder: Path, task: str) -> Any:
    return getattr(transformers, CLASSES[task]).from_pretrained(folder, dtype=torch.float32).eval()


def inputs(folder: Path, task: str) -> dict[str, torch.Tensor]:
    """A padded batch as transformers' own tokenizer makes it: of pairs, where the task has them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [list(PAIR), ["is it on", "play music"]] if task == "question-answering" else [PAIR[1], "play music"]
    types = json.loads((folder / "config.json").read_text())["model_type"] == "bert"
    return dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=types))


def expected(folder: Path, task: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found = theirs(folder, task)(**batch)
    if task == "question-answering":
        return torch.stack([found.start_logits, found.end_logits], -1)
    if task == "feature-extraction":
        mask = batch["attention_mask"][:, :, None]
        mean = (found.last_hidden_state * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)
    return found.logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("task", sorted(CLASSES))
@pytest.mark.parametrize("kind", KINDS)
def test_every_task_of_every_architecture_is_transformers(kind: str, task: str, tmp_path: Path) -> None:
    folder = tiny.saved(kind, task, tmp_path)
    features = Features(pooling="mean", normalize=True) if task == "feature-extraction" else None
    ours = checkpoint.read(folder, features).model
    assert ours.config.task == task
    batch = inputs(folder, task)
    truth = expected(folder, task, batch)
    with torch.no_grad():
        found = ours(batch["input_ids"], batch["attention_mask"])
    assert found.shape == truth.shape == ours.head.shape(*batch["input_ids"].shape)
    if truth.ndim == 3:  # what belongs to padding means nothing
        found, truth = (one[batch["attention_mask"].bool()] for one in (found, truth))
    assert truth.std() > 0.05  # a model that says the same of everything proves nothing
    torch.testing.assert_close(found, truth, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_our_tokens_are_transformers(kind: str, tmp_path: Path) -> None:
    folder = tiny.saved(kind, "question-answering", tmp_path)
    batch = inputs(folder, "question-answering")
    tokenizer = Tokenizer(checkpoint.read(folder).tokenizer, max_tokens=64, pad_token_id=0)
    ((window,),) = tokenizer.slide([PAIR[0]], [PAIR[1]], stride=8)
    assert window.ids.tolist() == batch["input_ids"][0].tolist()


def test_the_first_token_alone_can_be_the_vector(tmp_path: Path) -> None:
    folder = tiny.saved("bert", "feature-extraction", tmp_path)
    batch = inputs(folder, "feature-extraction")
    with torch.no_grad():
        truth = theirs(folder, "feature-extraction")(**batch).last_hidden_state[:, 0]
        found = checkpoint.read(folder, Features(pooling="cls")).model(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(found, truth, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "steps", "found"),
    [
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
            ["Normalize"],
            Features(pooling="mean", normalize=True),
        ),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, [], Features(pooling="cls")),
        ({"pooling_mode": "mean"}, [], Features(pooling="mean")),
    ],
)
def test_pooling_is_read_where_sentence_transformers_leaves_it(
    config: dict[str, Any], steps: list[str], found: Features, tmp_path: Path
) -> None:
    folder = tiny.saved("bert", "feature-extraction", tmp_path)
    types = [f"sentence_transformers.models.{step}" for step in ("Transformer", "Pooling", *steps)]
    (folder / "modules.json").write_text(json.dumps([{"type": one} for one in types]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **config}))
    shape = checkpoint.read(folder).model.config
    assert Features(pooling=shape.pooling, normalize=shape.normalize) == found


def test_a_vector_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected --pooling mean or cls"):
        checkpoint.read(tiny.saved("bert", "feature-extraction", tmp_path))


def test_pooling_that_is_not_supported_is_named(tmp_path: Path) -> None:
    folder = tiny.saved("bert", "feature-extraction", tmp_path)
    (folder / "modules.json").write_text(
        json.dumps([{"type": "x.Transformer"}, {"type": "x.Pooling"}, {"type": "x.Dense"}])
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(CheckpointError, match="found pooling_mode_max_tokens, Transformer, Pooling, Dense"):
        checkpoint.read(folder)


def test_labels_of_their_own_are_read(tmp_path: Path) -> None:
    folder = tiny.saved("distilbert", "text-classification", tmp_path, problem_type="multi_label_classification")
    assert checkpoint.read(folder).model.config.multi_label


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["DistilBertForMultipleChoice"]}, "head DistilBertForMultipleChoice is not supported"),
        ({"position_embedding_type": "relative_key"}, "position embeddings 'relative_key'"),
        ({"vocab_size": 4}, f"token {tiny.vocab_size() - 1} of tokenizer.json is beyond the 4 rows"),
        (
            {"vocab_size": 20},
            f"token {tiny.vocab_size() - 1} of tokenizer.json is beyond the 20 rows",
        ),  # no special one
    ],
)
def test_what_is_not_supported_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = tiny.saved("distilbert", "token-classification", tmp_path)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(folder)
