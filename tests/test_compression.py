from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer

from edgelm import checkpoint, compression, devices, recipe
from edgelm.errors import DataError, RecipeError
from edgelm.model import linear_macs

TOKENIZER = Tokenizer.from_str(tiny.tokenizer_json().decode())


@pytest.fixture
def train(tmp_path: Path) -> Path:
    rows = [{"text": text or "play", "label": tiny.LABELS[i % 3]} for i, text in enumerate(tiny.TEXTS * 4)]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("device", ["generic-x86_64", "x86_64-avx512-vnni"])
def test_widths_are_what_the_devices_kernels_like(device: str, train: Path, tiny_checkpoint: Path) -> None:
    located = recipe.of(data={"train": str(train)}, prune={"macs": 1.5}, export={"device": device})
    found = compression.plan(located.with_model(str(tiny_checkpoint)))
    multiple = devices.load(device).width_multiple
    assert found["steps"]["prune"]["multiple_of"] == multiple
    assert all(width % multiple == 0 or width == 48 for width in found["after"]["ffn"])


def test_the_recipe_has_the_last_word_on_widths(train: Path, tiny_checkpoint: Path) -> None:
    prune = {"macs": 1.5, "multiple_of": 4}
    located = recipe.of(data={"train": str(train)}, prune=prune, export={"device": "x86_64-avx512-vnni"})
    assert compression.plan(located.with_model(str(tiny_checkpoint)))["steps"]["prune"]["multiple_of"] == 4


def test_new_texts_are_distilled_on_too(train: Path, tiny_checkpoint: Path) -> None:
    texts = len(tiny.TEXTS) * 4
    for times in (0, 2):
        located = recipe.of(data={"train": str(train)}, distill={"epochs": 1, "augment": times})
        located = located.with_model(str(tiny_checkpoint))
        assert compression.compress(located).report["distill"]["texts"] == texts * (1 + times)
        assert compression.plan(located)["steps"]["distill"]["texts"] == texts * (1 + times)


def test_the_report_tells_which_data_it_was_and_not_where(train: Path, tiny_checkpoint: Path) -> None:
    located = recipe.of(data={"train": str(train), "unlabelled": [str(train)]}, vocab={})
    located = located.with_model(str(tiny_checkpoint))
    done = compression.compress(located)
    expected = hashlib.sha256(train.read_bytes()).hexdigest()
    assert done.report["data"] == {"train": expected, "unlabelled": [expected]}
    assert str(train.parent) not in json.dumps(compression.summary(done, located))


def test_texts_that_are_too_short_are_left_out(train: Path, tiny_checkpoint: Path) -> None:
    def told(least: int) -> int:
        located = recipe.of(data={"train": str(train), "min_tokens": least}, distill={"epochs": 1})
        found = compression.plan(located.with_model(str(tiny_checkpoint)))
        return int(found["steps"]["distill"]["texts"])

    rows = [len(TOKENIZER.encode(text or "play").ids) for text in tiny.TEXTS * 4]
    assert told(0) == len(rows)
    assert told(5) == sum(length >= 5 for length in rows) < len(rows)
    with pytest.raises(DataError, match=r"data\.min_tokens"):
        told(10_000)


def test_strides_are_planned_and_pruned_written_and_told_and_not_taken_twice(
    train: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    located = recipe.of(data={"train": str(train)}, prune={"macs": 1.5, "strides": [1, 2, 1]}, distill={"epochs": 1})
    located = located.with_model(str(tiny_checkpoint))
    planned, done = compression.plan(located), compression.compress(located)
    assert planned["after"]["strides"] == done.model.config.strides == (1, 2, 1)
    assert planned["after"]["macs"] == linear_macs(done.model.config)
    compression.save(done, tmp_path / "small")
    assert compression.summary(done, located)["model"]["strides"] == (1, 2, 1)
    assert checkpoint.read(tmp_path / "small").model.config.strides == (1, 2, 1)
    again = recipe.of(data={"train": str(train)}, prune={"macs": 1.5}).with_model(str(tmp_path / "small"))
    for command in (compression.plan, compression.compress):
        with pytest.raises(RecipeError, match="its layers have strides already: compress what it was made of"):
            command(again)


def test_a_plan_names_every_step_in_its_order(train: Path, tiny_checkpoint: Path) -> None:
    sections: dict[str, Any] = {
        "prune": {"macs": 1.5},
        "vocab": {},
        "sparsity": {"share": 0.1},
        "distill": {"epochs": 1},
    }
    located = recipe.of(data={"train": str(train)}, **sections).with_model(str(tiny_checkpoint))
    assert list(compression.plan(located)["steps"]) == list(sections)
    assert [step for step in compression.compress(located).report if step != "data"] == list(sections)
