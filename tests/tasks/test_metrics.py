"""Metrics beside known values and other implementations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgelm import tasks
from edgelm.errors import DataError
from edgelm.tasks.entities import chunks
from edgelm.tasks.spans import squad
from edgelm.tasks.vectors import spearman
from edgelm.text import Tokenizer


def tokenizer(tokens: int = 32) -> Tokenizer:
    return Tokenizer(tiny.tokenizer_json(), max_tokens=tokens, pad_token_id=0, tell=False)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_spearman_is_scipys_ties_included(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(series, np.float64) for series in zip(*pairs, strict=True))
    if one.std() and other.std():
        assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("said", "answers", "f1", "exact"),
    [  # by the rules of the official script: case, punctuation, articles and white space do not count
        ("The  Denver Broncos!", ["denver broncos"], 1.0, 1.0),
        ("Denver", ["Denver Broncos", "the Broncos"], 2 / 3, 0.0),
        ("Broncos of Denver", ["Denver Broncos"], 0.8, 0.0),
        ("a an the", [""], 1.0, 1.0),
        ("Denver", [], 0.0, 0.0),
        ("", [], 1.0, 1.0),
        ("to be to", ["to be"], 0.8, 0.0),
    ],
)
def test_squads_rules(said: str, answers: list[str], f1: float, exact: float) -> None:
    assert squad(said, answers) == pytest.approx((f1, exact))


@pytest.mark.parametrize(
    ("tags", "found"),
    [  # the cases of the CoNLL-2000 script: what begins and what ends a chunk
        (["O", "O"], set()),
        (["B-a", "I-a", "O"], {(0, 1, "a")}),
        (["B-a", "B-a"], {(0, 0, "a"), (1, 1, "a")}),
        (["B-a", "I-b"], {(0, 0, "a"), (1, 1, "b")}),
        (["O", "I-a", "I-a"], {(1, 2, "a")}),
        (["I-a", "O", "I-a"], {(0, 0, "a"), (2, 2, "a")}),
        (["B-a-b", "I-a-b"], {(0, 1, "a-b")}),
    ],
)
def test_chunks_are_conlls(tags: list[str], found: set[tuple[int, int, str]]) -> None:
    assert chunks(tags) == found


def test_entities_are_scored_by_the_first_token_of_each_word() -> None:
    task = tasks.of("token-classification", labels=tiny.TAGS)
    text, gold = task.parse({"tokens": ["xyz", "paris", "is"], "tags": ["B-thing", "B-place", "O"]}, "here")
    exam = task.exam(tokenizer(), [text], [gold])
    ((window,),) = exam.windows
    assert window.tokens == ("[CLS]", "x", "##y", "##z", "paris", "is", "[SEP]")
    output = np.zeros((7, 5), np.float32)
    output[1, 3] = output[2, 1] = output[4, 2] = 1.0  # xyz a thing, whatever its second piece is; paris goes on a place
    (score,) = task.scores(exam, [[output]])
    assert (score.metric, score.value, score.n) == ("f1", 1.0, 1)
    output[5, 2] = 1.0
    assert task.scores(exam, [[output]])[0].value == 0.5


def test_words_that_were_cut_off_are_outside() -> None:
    task = tasks.of("token-classification", labels=tiny.TAGS)
    text, gold = task.parse({"tokens": ["paris"] * 4, "tags": ["B-place"] * 4}, "here")
    exam = task.exam(tokenizer(4), [text], [gold])  # room for two of the four
    output = np.tile(np.eye(5, dtype=np.float32)[1], (4, 1))
    assert task.scores(exam, [[output]])[0].value == pytest.approx(2 / 3)


def test_a_model_that_knows_nothing_is_as_perplexed_as_there_are_pieces() -> None:
    task, cut = tasks.of("fill-mask", mask_token_id=4), tokenizer()
    exam = task.exam(cut, ["turn the light on in paris"] * 5, None)
    outputs = [[task.keep(w, np.zeros((len(w.ids), 101), np.float32)) for w in windows] for windows in exam.windows]
    (score,) = task.scores(exam, outputs)
    assert score.metric == "perplexity"
    assert score.value == pytest.approx(101)
    masked = sum(int((w.ids == 4).sum()) for windows in exam.windows for w in windows)
    assert score.n == masked > 0


def test_a_model_that_knows_all_is_not_perplexed() -> None:
    task, cut = tasks.of("fill-mask", mask_token_id=4), tokenizer()
    exam = task.exam(cut, ["play the music in paris"] * 7, None)
    whole = cut.windows(["play the music in paris"])[0].ids
    known = 50 * np.eye(101, dtype=np.float32)[whole]
    outputs = [[task.keep(w, known) for w in windows] for windows in exam.windows]
    assert task.scores(exam, outputs)[0].value == pytest.approx(1.0)


def test_vectors_are_scored_by_the_order_of_their_cosines() -> None:
    task = tasks.of("feature-extraction")
    rows: list[dict[str, Any]] = [{"text_a": "a", "text_b": "b", "score": score} for score in (5.0, 0.5, 3)]
    parsed = [task.parse(row, "here") for row in rows]
    exam = task.exam(tokenizer(), [pair for pair, _ in parsed], [score for _, score in parsed])
    assert [len(windows) for windows in exam.windows] == [2, 2, 2]
    angles = [0.1, 2.0, 1.0]
    kept = [[np.array([1.0, 0.0], np.float32), np.array([np.cos(a), np.sin(a)], np.float32)] for a in angles]
    (score,) = task.scores(exam, kept)
    assert score.metric == "spearman"
    assert score.value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("token-classification", {"tokens": "a b"}, "a list of words under 'tokens'"),
        ("token-classification", {"tokens": ["a"], "tags": []}, "as many 'tags' as 'tokens'"),
        ("token-classification", {"tokens": ["a"], "tags": ["B-person"]}, "tag 'B-person' is not one of the model's 5"),
        ("question-answering", {"question": "a"}, "a string under 'context'"),
        ("question-answering", {"question": "a", "context": "b", "answers": "b"}, "a list of texts under 'answers'"),
        ("feature-extraction", {"text_a": "a", "text_b": "b", "score": "5"}, "a number under 'score', found '5'"),
        ("feature-extraction", {"text_a": "a"}, "a string under 'text_b'"),
        ("fill-mask", {}, "a string under 'text'"),
    ],
)
def test_bad_lines_name_what_was_expected(name: Any, row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=f"data.jsonl, line 3: .*{words}"):
        tasks.of(name, labels=tiny.TAGS, mask_token_id=4).parse(row, "data.jsonl, line 3")
