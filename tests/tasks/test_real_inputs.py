"""Each task's answers to 500 real inputs beside those of transformers' pipelines: keys, types, order and values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from truth import pipeline, same

import edgelm
from edgelm import build, compression, recipe

COUNT, LIMIT, STRIDE, LONGEST = 500, 64, 16, 15

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture
def opened(request: pytest.FixtureRequest, folder: Path, teachers: Path) -> Iterator[tuple[Path, edgelm.Model]]:
    """(checkpoint, model) of the task that the test names: random weights, and BERT's own tokenizer."""
    task, changes = request.param
    name = "-".join([task, *changes])
    checkpoint, out = folder / name, folder / f"{name}.edgelm"
    tiny.saved("distilbert", task, checkpoint, (teachers / "sst2-teacher" / "tokenizer.json").read_bytes(), **changes)
    export = {"device": "generic-x86_64", "lengths": [LIMIT], "formats": ["onnx"], "precisions": ["fp32"]}
    features = {"pooling": "mean", "normalize": True} if task == "feature-extraction" else None
    located = recipe.of(export=export, features=features).with_model(str(checkpoint))
    build.export(compression.compress(located), located, out)
    with edgelm.load(out, threads=1) as model:
        yield checkpoint, model


def of(task: str, **changes: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("opened", [pytest.param((task, changes), id=task)], indirect=True)


def lines(path: Path, key: str) -> list[Any]:
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [row[key] for row in rows[:COUNT]]


@of("text-classification")
def test_labels(opened: tuple[Path, edgelm.Model], real_data: Path) -> None:
    checkpoint, model = opened
    truth = pipeline("text-classification", checkpoint)
    texts = lines(real_data / "imdb" / "dev.jsonl", "text")  # most of them are longer than the model takes
    same(model(texts), truth(texts, truncation=True))
    same(model(texts, top_k=None), truth(texts, top_k=None, truncation=True))


@of("text-classification", problem_type="multi_label_classification")
def test_several_labels(opened: tuple[Path, edgelm.Model], real_data: Path) -> None:
    checkpoint, model = opened
    texts = lines(real_data / "sst2" / "dev.jsonl", "text")
    same(model(texts, top_k=None), pipeline("text-classification", checkpoint)(texts, top_k=None, truncation=True))


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@of("token-classification")
def test_entities(opened: tuple[Path, edgelm.Model], real_data: Path) -> None:
    checkpoint, model = opened
    texts = [" ".join(words) for words in lines(real_data / "wnut17" / "dev.jsonl", "tokens")]
    for strategy in ("none", "simple", "first", "average", "max"):
        truth = pipeline("token-classification", checkpoint, aggregation_strategy=strategy)
        found = model(texts, aggregation_strategy=strategy)
        assert sum(map(len, found)) > COUNT
        same(found, truth(texts))


@of("fill-mask")
def test_masks(opened: tuple[Path, edgelm.Model], real_data: Path) -> None:
    checkpoint, model = opened
    texts = list[str]()
    for line in (real_data / "unlabelled" / "textbooks.txt").read_text("utf-8").split("\n"):
        words = line.split()[:30]
        if len(words) > 5 and len(texts) < COUNT and len(model.tokenizer.encode([line[:200]])[0]) < LIMIT:
            words[len(words) // 2] = "[MASK]"
            texts.append(" ".join(words)[:200])
    texts = [text for text in texts if "[MASK]" in text]
    assert len(texts) > 0.95 * COUNT
    same(model(texts), pipeline("fill-mask", checkpoint)(texts))


@of("feature-extraction")
def test_vectors(opened: tuple[Path, edgelm.Model], real_data: Path) -> None:
    checkpoint, model = opened
    texts = lines(real_data / "stsb" / "dev.jsonl", "text_a")
    states = pipeline("feature-extraction", checkpoint)(texts)
    means = np.stack([np.array(state[0]).mean(0) for state in states])
    np.testing.assert_allclose(model.encode(texts), means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-4)


@of("question-answering")
def test_answers(opened: tuple[Path, edgelm.Model], real_data: Path) -> None:
    """By the likeliest of all spans in transformers' logits: its pipelines have this task no more."""
    checkpoint, model = opened
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    original = transformers.AutoModelForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float32).eval()
    asked = list[dict[str, str]]()
    for article in json.loads((real_data / "squad" / "dev.json").read_bytes())["data"]:
        for part in article["paragraphs"]:
            asked += [{"question": one["question"], "context": part["context"]} for one in part["qas"]]
    asked = [one for one in asked if len(tokenizer(one["question"])["input_ids"]) < 30][:COUNT]
    assert len(asked) == COUNT
    found = model(asked, max_answer_len=LONGEST, doc_stride=STRIDE)
    for answer, one in zip(found, asked, strict=True):
        best = likeliest(tokenizer, original, **one)
        assert (answer["score"], one["context"][answer["start"] : answer["end"]]) == (
            pytest.approx(best[0], abs=1e-4),
            answer["answer"],
        )
        assert any(answer["answer"] == text for score, text in best[1] if score > best[0] - 1e-5)


def likeliest(tokenizer: Any, original: Any, question: str, context: str) -> tuple[float, list[tuple[float, str]]]:
    """(the best score, the best of each window with its text)."""
    batch = tokenizer(
        question,
        context,
        max_length=LIMIT,
        truncation="only_second",
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    spans = list[tuple[float, str]]()
    for index, ids in enumerate(batch["input_ids"]):
        with torch.no_grad():
            out = original(input_ids=torch.tensor([ids]))
        inside = np.array([part == 1 for part in batch.sequence_ids(index)])
        keep = torch.tensor([True, *inside[1:].tolist()])
        first, last = (
            torch.where(keep, one[0], -10000.0).softmax(-1).numpy() for one in (out.start_logits, out.end_logits)
        )
        scores = np.where(np.outer(inside, inside), np.outer(first, last), 0.0)
        scores = np.triu(scores) - np.triu(scores, LONGEST)
        words, offsets = batch.word_ids(index), batch["offset_mapping"][index]
        for s, e in np.argwhere(scores > scores.max() - 1e-6):
            start = min(o[0] for o, w, i in zip(offsets, words, inside, strict=True) if i and w == words[s])
            end = max(o[1] for o, w, i in zip(offsets, words, inside, strict=True) if i and w == words[e])
            spans.append((float(scores[s, e]), context[start:end]))
    return max(score for score, _ in spans), spans
