from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm import tasks
from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.tasks import Exam

SINGLE = tasks.of("text-classification", labels=["a", "b", "c"])
SEVERAL = tasks.of("text-classification", labels=["a", "b", "c"], multi_label=True)


def answer(task: tasks.Task, logits: list[float], **options: Any) -> Any:
    return task.answer(None, "", (), [np.array(logits, np.float32)], **options)  # type: ignore[arg-type]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=20))
def test_softmax_equals_torchs(values: list[float]) -> None:
    import torch

    logits = np.array([values], np.float32)
    expected = torch.from_numpy(logits.astype(np.float64)).softmax(-1).numpy()
    np.testing.assert_allclose(tasks.softmax(logits), expected, atol=1e-12)
    np.testing.assert_allclose(np.exp(tasks.log_softmax(logits)), expected, atol=1e-12)


def test_the_best_labels_come_first() -> None:
    found = answer(SINGLE, np.log([0.2, 0.5, 0.3]).tolist(), top_k=2)
    assert [one["label"] for one in found] == ["b", "c"]
    assert found[0]["score"] == pytest.approx(0.5, abs=1e-6)
    assert isinstance(found[0]["score"], float)
    assert answer(SINGLE, np.log([0.6, 0.1, 0.3]).tolist())["label"] == "a"


def test_more_labels_than_there_are_gives_all() -> None:
    assert len(answer(SINGLE, [0.0, 0.0, 0.0], top_k=9)) == 3


def test_ties_keep_the_order_of_the_labels() -> None:
    assert [one["label"] for one in answer(SINGLE, [0.0, 0.0, 0.0], top_k=3)] == ["a", "b", "c"]


def test_labels_of_their_own_have_probabilities_of_their_own() -> None:
    found = answer(SEVERAL, [0.0, 100.0, -100.0], top_k=None)
    assert [(one["label"], one["score"]) for one in found] == [("b", 1.0), ("a", 0.5), ("c", pytest.approx(0.0))]


def test_accuracy_counts_the_rows_that_are_right() -> None:
    score = tasks.accuracy(np.eye(4, dtype=np.float32), np.array([0, 1, 2, 0]))
    assert (score.metric, score.value, score.n) == ("accuracy", 0.75, 4)


def test_f1_of_several_labels_counts_pairs() -> None:
    gold = [np.array([True, False, True]), np.array([False, False, False])]
    kept = [[np.array([1.0, 1.0, -1.0], np.float32)], [np.array([-1.0, -1.0, -1.0], np.float32)]]
    (score,) = SEVERAL.scores(Exam(["x", "y"], (), gold), kept)
    assert (score.metric, score.value, score.n) == ("f1", 0.5, 2)  # one right, one too many, one missing


def test_what_two_models_both_say_is_agreed_on() -> None:
    one, other = (
        [[np.array(row, np.float32)] for row in rows] for rows in (([1, 0, 0], [0, 1, 0]), ([2, 0, 0], [0, 0, 1]))
    )
    assert tasks.agreement(SINGLE, one, other) == 0.5
    assert tasks.agreement(SEVERAL, one, one) == 1.0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": 7}, "a string under 'text'"),
        ({"text": "x", "labels": "a"}, "a list under 'labels'"),
        ({"text": "x", "labels": ["aa"]}, "label 'aa' is not one of the model's 3 labels; did you mean 'a'"),
    ],
)
def test_bad_lines_name_what_was_expected(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        SEVERAL.parse(row, "data.jsonl, line 3")


def test_a_lost_point_is_a_hundredth_of_a_metric_or_a_percent_of_a_perplexity() -> None:
    def score(metric: str, value: float) -> Score:
        return Score(metric=metric, value=value, n=1)

    assert tasks.loss(score("f1", 0.90), score("f1", 0.88)) == pytest.approx(2.0)
    assert tasks.loss(score("perplexity", 8.0), score("perplexity", 8.4)) == pytest.approx(5.0)
