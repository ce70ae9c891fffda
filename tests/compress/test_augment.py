from __future__ import annotations

import pytest
import tiny
import torch
from tokenizers import Tokenizer

from edgelm.compress import augment
from edgelm.compress.augment import augmented
from edgelm.compress.vocab import directions
from edgelm.model import Encoder

TOKENIZER = Tokenizer.from_str(tiny.tokenizer_json().decode())
VOCAB = TOKENIZER.get_vocab()
WORDS = sorted(piece for piece in VOCAB if len(piece) > 1 and piece.isalpha())
TEXTS = ["turn the light on", "play music", "is it on 9?"]


def twins(pairs: dict[str, str]) -> Encoder:
    """A model whose pairs of words are nearly the same."""
    model = tiny.encoder()
    for first, second in pairs.items():
        model.embeddings.word.weight.data[VOCAB[first]] = model.embeddings.word.weight[VOCAB[second]].detach() * 0.9
    return model


def test_words_are_replaced_by_the_nearest_ones_and_by_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "SHARE", 1.0)
    monkeypatch.setattr(augment, "NEIGHBOURS", 1)
    model = twins({"light": "paris", "music": "it"})
    found = augmented(model, tiny.tokenizer_json(), ["play music", "light"], 1, seed=0)
    assert found[0].split()[1] == "it"
    assert found[1] == "paris"
    cosines = directions(model) @ directions(model).T
    (other,) = found[0].split()[:1]
    apart = torch.tensor([VOCAB[word] for word in WORDS if word != "play"])
    assert VOCAB[other] == int(apart[cosines[VOCAB["play"], apart].argmax()])


def test_numbers_marks_and_cut_words_stay() -> None:
    found = augmented(tiny.encoder(), tiny.tokenizer_json(), ["9 ? playing"] * 20, 3, seed=0)
    assert {tuple(TOKENIZER.encode(text).tokens) for text in found} == {tuple(TOKENIZER.encode("9 ? playing").tokens)}


def test_a_fifth_of_the_words_is_replaced() -> None:
    texts = ["turn the light on"] * 400
    found = augmented(tiny.encoder(), tiny.tokenizer_json(), texts, 2, seed=0)
    assert len(found) == 800
    same = [ours == theirs for text in found for ours, theirs in zip(text.split(), texts[0].split(), strict=True)]
    assert 0.77 < sum(same) / len(same) < 0.83


def test_the_seed_decides() -> None:
    model, raw = tiny.encoder(), tiny.tokenizer_json()
    first, again, other = (augmented(model, raw, TEXTS, 8, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_nothing_is_made_of_nothing() -> None:
    assert augmented(tiny.encoder(), tiny.tokenizer_json(), TEXTS, 0, seed=0) == []
    assert augmented(tiny.encoder(), tiny.tokenizer_json(), ["", "9"], 1, seed=0) == ["", "9"]
