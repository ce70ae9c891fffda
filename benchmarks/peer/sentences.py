"""The requests: real sentences, cut to a length or as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from edgelm.text import Tokenizer
from peer import Request

__all__ = ["BATCHES", "LENGTHS", "Cell", "batched", "cells", "of_length"]

LENGTHS = (16, 32, 64, 128, 256)
BATCHES = (1, 16)
_TEXTS = 16


@dataclass(frozen=True)
class Cell:
    """What is measured together.

    Attributes:
        tokens: of every text, special ones included; 0 for the texts as they are.
        batch: texts in a request.
        requests: of it, which take turns.
    """

    tokens: int
    batch: int
    requests: tuple[Request, ...]


def cells(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[Cell]:
    """Every length in every batch, on the same 16 texts for each length.

    Args:
        texts: real ones, in their order.
        tokenizer: of the model.
    """
    own = [texts[at * len(texts) // _TEXTS] for at in range(_TEXTS)]  # from all over the data
    sets = {
        tokens: of_length(texts, tokens, _TEXTS, lambda word: len(tokenizer.encode([word])[0]) - 2)
        for tokens in LENGTHS
    } | {0: own}
    for batch in BATCHES:
        for tokens, found in sets.items():
            groups = [found[at : at + batch] for at in range(0, _TEXTS, batch)]
            yield Cell(tokens, batch, tuple(batched(group, tokenizer) for group in groups))


def batched(texts: Sequence[str], tokenizer: Tokenizer) -> Request:
    """Texts as one request."""
    return Request(tuple(texts), *tokenizer.batch(tokenizer.encode(texts)))


def of_length(texts: Iterable[str], tokens: int, count: int, pieces: Callable[[str], int]) -> list[str]:
    """Texts of exactly so many tokens, two special ones included: sentence after sentence, cut where it is full.

    Args:
        texts: whose words are taken in order, each once.
        tokens: of every text.
        count: texts.
        pieces: how many tokens a word has.
    """
    words, found = (word for text in texts for word in text.split()), []
    for _ in range(count):
        taken, left = list[str](), tokens - 2
        while left:
            word = next(words)
            if pieces(word) <= left:  # else it is left out, and the next one may fit
                taken.append(word)
                left -= pieces(word)
        found.append(" ".join(taken))
    return found
