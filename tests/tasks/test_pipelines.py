"""Every task's answers from a bundle beside those of transformers' own pipeline, keys, types, order and values."""

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
from edgelm.bundle import Bundle
from edgelm.errors import DataError

TEXTS = ["turn the lights off in paris", "play music", "what time is it in paris, is it the time", "sing!"]
MASKED = [f"{text} {{}} it" for text in TEXTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tasks")


def bundled(folder: Path, kind: str, task: str, **changes: Any) -> tuple[Path, Path]:
    """(checkpoint, bundle) in ONNX fp32; a checkpoint is exported once a session."""
    model, out = folder / f"{kind}-{task}", folder / f"{kind}-{task}.edgelm"
    if not out.exists():
        tiny.saved(kind, task, model, **changes)
        export = {"device": "generic-x86_64", "lengths": [16, 64], "formats": ["onnx"], "precisions": ["fp32"]}
        features = {"pooling": "mean", "normalize": True} if task == "feature-extraction" else None
        located = recipe.of(export=export, features=features).with_model(str(model))
        build.export(compression.compress(located), located, out)
    return model, out


@pytest.fixture(params=["distilbert", "roberta"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened() -> Iterator[Any]:
    models: list[edgelm.Model] = []

    def load(path: Path) -> edgelm.Model:
        models.append(edgelm.load(path, threads=1))
        return models[-1]

    yield load
    for model in models:
        model.close()


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
def test_entities_are_those_of_the_pipeline(kind: str, strategy: str, folder: Path, opened: Any) -> None:
    checkpoint, bundle = bundled(folder, kind, "token-classification")
    truth = pipeline("token-classification", checkpoint, aggregation_strategy=strategy)
    model = opened(bundle)
    for given in (TEXTS, TEXTS[0]):
        found = model(given, aggregation_strategy=strategy)
        assert found
        same(found, truth(given))


def test_entities_of_long_texts_come_from_windows(folder: Path, opened: Any) -> None:
    checkpoint, bundle = bundled(folder, "distilbert", "token-classification")
    truth = pipeline("token-classification", checkpoint, aggregation_strategy="simple", stride=8)
    text = " ".join(TEXTS * 8)
    found = opened(bundle)(text, aggregation_strategy="simple", stride=8)
    assert max(one["end"] for one in found) > len(text) // 2
    same(found, truth(text))


def test_masks_are_filled_as_by_the_pipeline(kind: str, folder: Path, opened: Any) -> None:
    checkpoint, bundle = bundled(folder, kind, "fill-mask")
    truth, mask = pipeline("fill-mask", checkpoint), "<mask>" if kind == "roberta" else "[MASK]"
    texts = [text.format(mask) for text in MASKED]
    model = opened(bundle)
    same(model(texts), truth(texts))
    same(model(texts[0], top_k=2), truth(texts[0], top_k=2))
    two = f"{mask} the {mask}"
    same(model(two), truth(two))
    pieces = [model.tokenizer.piece(index) for index in (20, 9)]
    same(model(texts[0], targets=pieces), truth(texts[0], targets=pieces))


def test_labels_of_their_own_are_those_of_the_pipeline(folder: Path, opened: Any) -> None:
    checkpoint, bundle = bundled(folder, "bert", "text-classification", problem_type="multi_label_classification")
    truth, model = pipeline("text-classification", checkpoint), opened(bundle)
    same(model(TEXTS), truth(TEXTS))
    same(model(TEXTS, top_k=None), truth(TEXTS, top_k=None))


def test_vectors_are_pooled_as_they_are_by_hand(kind: str, folder: Path, opened: Any) -> None:
    checkpoint, bundle = bundled(folder, kind, "feature-extraction")
    states = pipeline("feature-extraction", checkpoint)(TEXTS)  # of every token; a text alone has no padding
    means = np.stack([np.array(state[0]).mean(0) for state in states])
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    model = opened(bundle)
    found = model.encode(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(model(TEXTS[0]), expected[0], atol=1e-4)


def test_the_vector_of_a_long_text_is_the_mean_of_its_windows(folder: Path, opened: Any) -> None:
    model = opened(bundled(folder, "distilbert", "feature-extraction")[1])
    long = " ".join(TEXTS) * 30
    pieces = model.tokenizer.slide([long], None, stride=4)[0]
    assert len(pieces) > 3
    assert np.concatenate([piece.spans for piece in pieces]).max() == len(long)  # nothing is cut off
    parts = np.stack([model.run(piece) for piece in pieces])
    mean = sum(part * len(piece.ids) for part, piece in zip(parts, pieces, strict=True))
    found = model.encode([TEXTS[0], long], stride=4)
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(found[0], model.encode(TEXTS[:1])[0])
    np.testing.assert_allclose(model(long, stride=4), found[1], atol=1e-6)
    assert np.abs(found[1] - model.encode([long])[0]).max() > 1e-3


def test_only_vectors_are_encoded(folder: Path, opened: Any) -> None:
    with pytest.raises(DataError, match="this model is for fill-mask"):
        opened(bundled(folder, "distilbert", "fill-mask")[1]).encode(TEXTS)


CONTEXT = "the time in paris is the time it is. turn the music off! the lights is on, what? " * 3
QUESTION = {"question": "what time is it", "context": CONTEXT}


def test_an_answer_is_the_likeliest_span_of_all(kind: str, folder: Path, opened: Any) -> None:
    """By brute force over transformers' own logits, windows included: its pipelines have this task no more."""
    checkpoint, bundle = bundled(folder, kind, "question-answering")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    original = transformers.AutoModelForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float32).eval()
    batch = tokenizer(
        QUESTION["question"],
        CONTEXT,
        max_length=64,
        truncation="only_second",
        stride=20,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    assert len(batch["input_ids"]) > 1
    best: tuple[float, str] = (0.0, "")
    for index, ids in enumerate(batch["input_ids"]):
        with torch.no_grad():
            out = original(input_ids=torch.tensor([ids]))
        inside = [part == 1 for part in batch.sequence_ids(index)]
        keep = torch.tensor([True, *inside[1:]])
        first, last = ((torch.where(keep, one[0], -10000.0)).softmax(-1) for one in (out.start_logits, out.end_logits))
        offsets = batch["offset_mapping"][index]
        for s in range(len(ids)):
            for e in range(s, min(s + 4, len(ids))):
                if inside[s] and inside[e]:
                    words = batch.word_ids(index)
                    start = min(o[0] for o, w, i in zip(offsets, words, inside, strict=True) if i and w == words[s])
                    end = max(o[1] for o, w, i in zip(offsets, words, inside, strict=True) if i and w == words[e])
                    best = max(best, (float(first[s] * last[e]), CONTEXT[start:end]))
    model = opened(bundle)
    found = model(QUESTION, max_answer_len=4, doc_stride=20)
    assert list(found) == ["score", "start", "end", "answer"]
    assert (found["score"], found["answer"]) == (pytest.approx(best[0], abs=1e-4), best[1])
    assert CONTEXT[found["start"] : found["end"]] == found["answer"]
    assert model(**QUESTION, max_answer_len=4, doc_stride=20) == found
    several = model([QUESTION] * 2, top_k=3, max_answer_len=4, doc_stride=20)
    assert [one[0] for one in several] == [found, found]
    assert [one["score"] for one in several[0]] == sorted((one["score"] for one in several[0]), reverse=True)


def test_no_answer_may_be_the_answer(folder: Path, opened: Any) -> None:
    model = opened(bundled(folder, "distilbert", "question-answering")[1])
    found = model(QUESTION, top_k=5000, handle_impossible_answer=True)
    assert [one for one in found if one["answer"] == ""] != []
    assert all(one["answer"] for one in model(QUESTION, top_k=5000))


@pytest.mark.parametrize(
    ("task", "given", "options", "words"),
    [
        ("question-answering", "a text", {}, "expected a mapping with 'question' and 'context', found str"),
        ("question-answering", {"question": "x"}, {}, "'question' and 'context'"),
        ("question-answering", [QUESTION, None], {}, "input 1"),
        ("question-answering", {"question": "what " * 99, "context": "x"}, {}, "leave room for the context"),
        ("fill-mask", "no mask", {}, r"the text has no \[MASK\]"),
        ("fill-mask", "[MASK]", {"targets": ["unheard-of"]}, "expected pieces of the vocabulary, found unheard-of"),
        ("token-classification", "x", {"aggregation_strategy": "most"}, "found 'most'"),
        ("token-classification", "x", {"stride": 4}, "ask for another aggregation_strategy"),
        (
            "token-classification",
            "x",
            {"stride": 64, "aggregation_strategy": "max"},
            "stride 64: expected fewer tokens",
        ),
        ("token-classification", "x", {"top_k": 2}, "no option 'top_k': expected one of aggregation_strategy, stride"),
        ("feature-extraction", 7, {}, "found int"),
    ],
)
def test_bad_input_gets_one_line(
    task: str, given: Any, options: dict[str, Any], words: str, folder: Path, opened: Any
) -> None:
    with pytest.raises(DataError, match=words):
        opened(bundled(folder, "distilbert", task)[1])(given, **options)


def test_a_bundle_says_what_it_is_for(folder: Path) -> None:
    for task in tiny.HEADS:
        manifest = Bundle(bundled(folder, "bert" if task == "text-classification" else "distilbert", task)[1]).manifest
        assert manifest.task == task
    golden = json.loads(Bundle(bundled(folder, "distilbert", "fill-mask")[1]).read("golden.json"))
    assert len(golden["rows"]) == 8
