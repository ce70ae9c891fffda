"""A budget through the whole build, by a table that is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from table import made

from edgelm import aim, build, checkpoint, compression, data, recipe
from edgelm.check import Reference
from edgelm.data import Dataset
from edgelm.errors import GateFailed, RecipeError
from edgelm.model import parameters
from edgelm.recipe import Located
from edgelm.schema import encode

LOOSE = {"max_abs_diff": 1e3, "agreement": 0.0, "kl": 1e3, "accuracy_loss": 100.0}  # the weights are random


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tiny.distilbert(tmp_path / "checkpoint")
    rows = [{"text": text or "play it", "label": tiny.LABELS[i % 3]} for i, text in enumerate(tiny.TEXTS * 4)]
    for name in ("train.jsonl", "dev.jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "table.json").write_bytes(encode(made()))
    return tmp_path


def located(place: Path, budget: dict[str, Any], **sections: Any) -> Located:
    made = recipe.of(
        data={"train": str(place / "train.jsonl"), "dev": str(place / "dev.jsonl")},
        budget={"tokens": 16, "engine": "onnxruntime", "table": str(place / "table.json"), **budget},
        prune={"multiple_of": 8},
        export={"device": "generic-x86_64", "formats": ["onnx"], "precisions": ["int8-dynamic"], "lengths": [16, 32]},
        gates={"int8-dynamic": LOOSE},
        **sections,
    )
    return made.with_model(str(place / "checkpoint"))


def test_the_build_sets_the_predicted_beside_the_measured(place: Path) -> None:
    out = place / "x.edgelm"
    manifest, _, compressed = build.build(located(place, {"p50_ms": 20.0}), out, seconds=0.1)
    found = compressed.report["budget"]
    assert 18 < found["predicted"]["p50_ms"] <= 20
    assert found["predicted_original"]["p50_ms"] > 30
    assert found["measured"]["p50_ms"] > 0
    assert found["measured"]["bytes"] == manifest.variants[0].bytes
    assert parameters(compressed.model) < parameters(compressed.original.model)


def test_the_plan_is_what_is_done(place: Path) -> None:
    wanted = located(place, {"p50_ms": 20.0}, vocab={"min_count": 1})
    before = sorted(place.iterdir())
    planned, done = compression.plan(wanted), compression.compress(wanted)
    assert sorted(place.iterdir()) == before
    assert planned["after"]["heads"] == done.model.config.heads
    assert planned["after"]["ffn"] == done.model.config.ffn
    assert planned["after"]["vocab"] == done.model.config.vocab_size
    assert planned["after"]["parameters"] == parameters(done.model)
    assert planned["budget"] == done.report["budget"]
    assert list(planned["steps"]) == ["prune", "vocab"]


def test_a_loss_that_is_not_allowed_fails_the_compression(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = checkpoint.read(place / "checkpoint")
    texts = data.read(place / "dev.jsonl", tiny.LABELS).texts
    answers = Reference(original.model, original.tokenizer, 32, Dataset(texts, None)).logits.argmax(-1)
    rows = [{"text": text, "label": tiny.LABELS[i]} for text, i in zip(texts, answers, strict=True)]
    (place / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prune = aim.pruned

    def contrary(*arguments: Any) -> Any:
        model, report = prune(*arguments)
        with torch.no_grad():
            model.get_parameter("head.classifier.weight").neg_()
            model.get_parameter("head.classifier.bias").neg_()
        return model, report

    monkeypatch.setattr(aim, "pruned", contrary)
    with pytest.raises(GateFailed, match=r"100\.00 points below the original's 1\.0000; the budget allows 2\.5"):
        compression.compress(located(place, {"p50_ms": 20.0, "points": 2.5}))


def test_points_need_labelled_dev_texts(place: Path) -> None:
    (place / "dev.jsonl").write_text('{"text": "a"}', encoding="utf-8")
    with pytest.raises(RecipeError, match=r"data\.dev"):
        compression.compress(located(place, {"points": 1.0}))


def test_points_alone_find_the_fastest_that_keeps_them(place: Path) -> None:
    found = compression.compress(located(place, {"points": 100.0})).report["budget"]
    assert found["predicted"]["p50_ms"] < 0.2 * found["predicted_original"]["p50_ms"]


@pytest.mark.parametrize("limit", [{"p50_ms": 20.0}, {"points": 50.0}], ids=["p50_ms", "points"])
def test_a_budget_and_macs_contradict_each_other(limit: dict[str, float], place: Path) -> None:
    both = recipe.of(
        ["prune.macs=2"],
        data={"train": str(place / "train.jsonl"), "dev": str(place / "dev.jsonl")},
        budget={**limit, "tokens": 16, "table": str(place / "table.json"), "engine": "onnxruntime"},
    )
    with pytest.raises(RecipeError, match="the budget chooses"):
        compression.compress(both.with_model(str(place / "checkpoint")))
