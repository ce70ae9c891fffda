from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from edgelm.compress.vocab import trim
from edgelm.errors import CheckpointError, RecipeError
from edgelm.model import Encoder
from edgelm.recipe import Vocab

WHOLE = Tokenizer.from_str(tiny.tokenizer_json().decode())
COUNTED = ["turn the light on", "play music", "is it on"]
ROWS = [np.array(WHOLE.encode(text).ids, np.int32) for text in COUNTED]
MODEL = tiny.encoder()
TRIMMED, RAW, REPORT = trim(MODEL, tiny.tokenizer_json(), Vocab(share=1.0), ROWS)
SMALL = Tokenizer.from_str(RAW.decode())
KEPT_WORDS = sorted({word for text in COUNTED for word in text.split()})


def test_unused_pieces_go_and_characters_stay() -> None:
    pieces = SMALL.get_vocab()
    assert "paris" not in pieces
    assert "##ing" not in pieces
    assert {"p", "##p", "9", "##9", "turn", "[MASK]"} <= set(pieces)
    assert REPORT.rows == (WHOLE.get_vocab_size(), SMALL.get_vocab_size())
    assert TRIMMED.config.vocab_size == SMALL.get_vocab_size() < WHOLE.get_vocab_size()
    assert sorted(pieces.values()) == list(range(len(pieces)))


@given(st.lists(st.sampled_from(KEPT_WORDS), max_size=12))
def test_kept_words_are_cut_as_before(words: list[str]) -> None:
    text = " ".join(words)
    assert SMALL.encode(text).tokens == WHOLE.encode(text).tokens


@settings(max_examples=200)
@given(st.text(alphabet="abcxyz019?!. paris##ing\u00e9\u4e2d", max_size=30))
def test_no_text_gains_an_unknown_token(text: str) -> None:
    before, after = (t.encode(text).tokens.count("[UNK]") for t in (WHOLE, SMALL))
    assert after == before


def test_the_same_tokens_give_the_same_logits() -> None:
    for text in COUNTED:
        with torch.no_grad():
            old, new = (torch.tensor([t.encode(text).ids]) for t in (WHOLE, SMALL))
            expected = MODEL(old, torch.ones_like(old))
            assert torch.equal(TRIMMED(new, torch.ones_like(new)), expected)


@pytest.mark.parametrize("template", [True, False])
def test_special_tokens_are_renumbered_everywhere(template: bool) -> None:
    raw = json.loads(tiny.tokenizer_json())
    words = raw["model"]["vocab"]
    # a vocabulary whose special tokens, all but [PAD], come last, so that trimming moves them
    pieces = sorted(words, key=lambda piece: (piece in tiny.SPECIAL[1:], words[piece]))
    moved = {words[piece]: index for index, piece in enumerate(pieces)}
    raw["model"]["vocab"] = {piece: moved[index] for piece, index in words.items()}
    for token in raw["added_tokens"]:
        token["id"] = moved[token["id"]]
    for token in raw["post_processor"]["special_tokens"].values():
        token["ids"] = [moved[index] for index in token["ids"]]
    if not template:
        raw["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", moved[3]], "cls": ["[CLS]", moved[2]]}
    _, small, _ = trim(tiny.encoder(), json.dumps(raw).encode(), Vocab(share=1.0), [])
    cut = Tokenizer.from_str(small.decode()).encode("on")
    assert cut.tokens == ["[CLS]", "o", "##n", "[SEP]"]
    assert cut.ids[0] != moved[2]


EXTRA = ["\u044f", "##\u044f", "\u4e2d"]


@pytest.mark.parametrize(
    ("config", "expected"),
    [(Vocab(share=1.0), set(EXTRA)), (Vocab(characters="ascii", share=1.0), {"\u4e2d"})],
    ids=["all", "ascii"],
)
def test_other_characters_go_where_ascii_alone_is_asked_for_unless_they_occur(
    config: Vocab, expected: set[str]
) -> None:
    raw = json.loads(tiny.tokenizer_json())
    words = raw["model"]["vocab"]
    words |= {piece: len(words) + index for index, piece in enumerate(EXTRA)}
    model = Encoder(replace(MODEL.config, vocab_size=len(words)))
    _, small, _ = trim(model, json.dumps(raw).encode(), config, [np.array([words["\u4e2d"]], np.int32)])
    pieces = set(json.loads(small)["model"]["vocab"])
    assert pieces & set(EXTRA) == expected
    assert {"p", "##p", "9", "?"} <= pieces


def test_the_rarest_pieces_go_first_where_rows_are_few() -> None:
    always = trim(MODEL, tiny.tokenizer_json(), Vocab(share=1.0), [])[0].config.vocab_size
    rows = [np.array(WHOLE.encode(text).ids, np.int32) for text in ["it is it", "it is on"]]
    model, small, report = trim(MODEL, tiny.tokenizer_json(), Vocab(rows=always + 2, share=1.0), rows)
    pieces = set(json.loads(small)["model"]["vocab"])
    assert {"it", "is"} <= pieces
    assert "on" not in pieces
    assert model.config.vocab_size == report.rows[1] == always + 2


def sharing(pairs: dict[str, str]) -> tuple[Encoder, bytes, Tokenizer]:
    """A trimmed model some of whose words were nearly the same, and its tokenizer as bytes and as an object."""
    model, vocab = tiny.encoder(), WHOLE.get_vocab()
    weight = model.embeddings.word.weight.data
    for piece, other in pairs.items():
        weight[vocab[piece]] = weight[vocab[other]] * 0.9
    small, raw, report = trim(model, tiny.tokenizer_json(), Vocab(share=0.9), ROWS)
    assert report.shared == len(pairs)
    return small, raw, Tokenizer.from_str(raw.decode())


def test_a_piece_that_goes_shares_the_row_of_the_one_most_like_it() -> None:
    small, raw, tokenizer = sharing({"paris": "light", "##ing": "##n"})
    text, other = (tokenizer.encode(text).ids for text in ("play paris on", "play light on"))
    assert text == other
    assert len(text) == len(WHOLE.encode("play paris on").ids)
    assert tokenizer.encode("playing").ids == tokenizer.encode("playn").ids
    assert max(json.loads(raw)["model"]["vocab"].values()) < small.config.vocab_size


def test_transformers_reads_shared_rows_as_tokenizers_does(tmp_path: Path) -> None:
    _, raw, tokenizer = sharing({"paris": "light", "##ing": "##n"})
    (tmp_path / "tokenizer.json").write_bytes(raw)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))  # type: ignore[no-untyped-call]
    text = "play paris, playing on"
    assert theirs(text)["input_ids"] == tokenizer.encode(text).ids


def test_no_piece_shares_a_row_that_is_not_like_it_or_stands_elsewhere_in_a_word() -> None:
    assert len(sharing({})[2].encode("paris").ids) == 2 + len("paris")
    vocab, model = WHOLE.get_vocab(), tiny.encoder()
    model.embeddings.word.weight.data[vocab["##ing"]] = model.embeddings.word.weight[vocab["light"]].detach()
    _, _, report = trim(model, tiny.tokenizer_json(), Vocab(share=0.9), ROWS)
    assert report.shared == 0


def test_fewer_rows_than_characters_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"vocab\.rows: 3 are fewer than the \d+ of special tokens"):
        trim(MODEL, tiny.tokenizer_json(), Vocab(rows=3), ROWS)


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="WordPiece tokenizer, found BPE"):
        trim(MODEL, b'{"model": {"type": "BPE"}}', Vocab(), ROWS)
