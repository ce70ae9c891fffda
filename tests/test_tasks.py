from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgelm import tasks


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=20))
def test_softmax_equals_torchs(values: list[float]) -> None:
    logits = np.array([values], np.float32)
    expected = torch.from_numpy(logits.astype(np.float64)).softmax(-1).numpy()
    np.testing.assert_allclose(tasks.softmax(logits), expected, atol=1e-12)


def test_the_best_labels_come_first() -> None:
    logits = np.log(np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], np.float32))
    best, second = tasks.classify(logits, ["a", "b", "c"], 2)
    assert [answer["label"] for answer in best] == ["b", "c"]
    assert [answer["label"] for answer in second] == ["a", "c"]
    assert best[0]["score"] == pytest.approx(0.5, abs=1e-6)
    assert isinstance(best[0]["score"], float)


def test_more_labels_than_there_are_gives_all() -> None:
    assert len(tasks.classify(np.zeros((1, 3), np.float32), ["a", "b", "c"], 9)[0]) == 3


def test_ties_keep_the_order_of_the_labels() -> None:
    assert [a["label"] for a in tasks.classify(np.zeros((1, 3), np.float32), ["a", "b", "c"], 3)[0]] == ["a", "b", "c"]


def test_accuracy_counts_the_rows_that_are_right() -> None:
    score = tasks.accuracy(np.eye(4, dtype=np.float32), np.array([0, 1, 2, 0]))
    assert (score.metric, score.value, score.n) == ("accuracy", 0.75, 4)
