from __future__ import annotations

import logging

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer as Wheel

from edgelm.errors import DataError
from edgelm.text import Tokenizer


def tokenizer(max_tokens: int = 64) -> Tokenizer:
    return Tokenizer(tiny.tokenizer_json(), max_tokens=max_tokens, pad_token_id=0)


def test_ids_are_those_of_the_wheel() -> None:
    wheel = Wheel.from_str(tiny.tokenizer_json().decode())
    for text, row in zip(tiny.TEXTS, tokenizer().encode(tiny.TEXTS), strict=True):
        assert row.tolist() == wheel.encode(text).ids
        assert row.dtype == np.int32


def test_truncation_and_padding_set_in_the_file_are_not_used() -> None:
    wheel = Wheel.from_str(tiny.tokenizer_json().decode())
    wheel.enable_truncation(4)
    wheel.enable_padding(length=40)
    made = Tokenizer(wheel.to_str().encode(), max_tokens=64, pad_token_id=0)
    assert len(made.encode(["turn the light on"])[0]) == 6


def test_long_texts_are_cut_with_their_special_tokens_kept_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = tokenizer(max_tokens=5)
    with caplog.at_level(logging.WARNING, "edgelm"):
        rows = made.encode(["turn the light on", "play music"])
        made.encode(["what is the time in paris"])
    assert [len(row) for row in rows] == [5, 4]
    assert (rows[0][0], rows[0][-1]) == (2, 3)
    assert [record.message for record in caplog.records] == [
        "a text was cut to 5 tokens, the limit of this model; said once"
    ]


def test_empty_text_has_two_tokens() -> None:
    assert tokenizer().encode([""])[0].tolist() == [2, 3]


def test_batches_are_padded_on_the_right() -> None:
    made = tokenizer()
    rows = made.encode(["play music", "turn the light on"])
    ids, mask = made.batch(rows)
    assert ids.shape == mask.shape == (2, 6)
    assert ids.dtype == mask.dtype == np.int32
    assert mask.sum(1).tolist() == [4, 6]
    assert ids[0, 4:].tolist() == [0, 0]
    assert made.batch(rows, length=9)[0].shape == (2, 9)


@pytest.mark.parametrize("bad", [None, b"bytes", 7, ["nested"], float("nan")])
def test_what_is_not_text_is_refused_by_its_place(bad: object) -> None:
    with pytest.raises(DataError, match=r"text 1 is not text: expected str, found"):
        tokenizer().encode(["fine", bad])  # type: ignore[list-item]


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(DataError, match="surrogate"):
        tokenizer().encode(["a\ud800b"])


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"model": 3}'])
def test_a_broken_tokenizer_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Tokenizer(content, max_tokens=8, pad_token_id=0)
