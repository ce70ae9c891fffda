from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from transformers import DistilBertForSequenceClassification

from edgelm.data import Dataset
from edgelm.errors import DataError
from edgelm.evaluate import evaluate, evaluate_bundle
from edgelm.tasks import of
from edgelm.text import Tokenizer, Window

TASK = of("text-classification", labels=tiny.LABELS)


def tokenizer() -> Tokenizer:
    return Tokenizer(tiny.tokenizer_json(), max_tokens=32, pad_token_id=0)


def test_counts_over_many_batches_and_tells_each_row_once() -> None:
    gold = np.arange(173) % 3
    wrong = {5, 60, 172}
    told: list[int] = []
    order = iter(range(173))

    def run(window: Window) -> NDArray[np.float32]:
        del window
        index = next(order)
        return np.asarray(np.eye(3)[gold[index] if index not in wrong else (gold[index] + 1) % 3], np.float32)

    class Bar:
        def __init__(self, name: str, total: int) -> None:
            assert (name, total) == ("eval", 173)

        def __enter__(self) -> object:
            return told.append

        def __exit__(self, *_: object) -> None:
            pass

    data = Dataset(tuple(map(str, range(173))), gold)
    (score,) = evaluate(run, TASK, tokenizer(), data, progress=Bar)  # type: ignore[arg-type]
    assert (score.metric, score.n) == ("accuracy", 173)
    assert score.value == pytest.approx(170 / 173)
    assert sum(told) == 173


def test_data_without_labels_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected 'label'.* on every line"):
        evaluate(lambda window: np.zeros(3, np.float32), TASK, tokenizer(), Dataset(("a",), None))


def test_a_bundles_score_is_that_of_transformers(tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"text": text, "label": tiny.LABELS[index % 3]} for index, text in enumerate(tiny.TEXTS * 3)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    model = DistilBertForSequenceClassification.from_pretrained(tiny_checkpoint)
    right = 0
    for row in rows:
        (ids,) = tokenizer().encode([row["text"]])
        with torch.no_grad():
            found = int(model(torch.from_numpy(ids).long()[None]).logits.argmax())
        right += tiny.LABELS[found] == row["label"]
    results = evaluate_bundle(tiny_bundle, tmp_path / "data.jsonl", precision="fp32", threads=1)
    assert [(r["engine"], r["value"], r["n"]) for r in results] == [
        (engine, pytest.approx(right / len(rows)), len(rows)) for engine in ("onnxruntime", "litert")
    ]
