"""More texts to distil on: those there are, some of their words replaced by others of like meaning.

The teacher says what the new texts mean, so they need no labels, and a replacement that changes the meaning does no
harm [Jiao 2020, "TinyBERT", section 3.2 and algorithm 1, where BERT and GloVe propose the words]. Here it is the
teacher's own word embeddings that propose: of each word, its nearest neighbours in the whole vocabulary. So the student
also reads words that its training texts do not have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tokenizers
from numpy.typing import NDArray

from edgelm.compress.vocab import directions
from edgelm.model import Encoder

__all__ = ["NEIGHBOURS", "SHARE", "augmented"]

SHARE = 0.2
"""Of the words of a text, those that are replaced."""
NEIGHBOURS = 10
"""Among so many of a word's nearest ones its replacement is drawn."""


def augmented(model: Encoder, tokenizer: bytes, texts: Sequence[str], times: int, *, seed: int) -> list[str]:
    """New texts, ``times`` of each.

    Args:
        model: the original, by whose word embeddings words are alike.
        tokenizer: content of its ``tokenizer.json``.
        texts: to start from.
        times: new texts of each.
        seed: of what is replaced, and by what.

    Returns:
        The new texts; one may be as it was.
    """
    if not times:
        return []
    made = tokenizers.Tokenizer.from_str(tokenizer.decode("utf-8"))
    made.no_padding()
    made.no_truncation()
    encodings = made.encode_batch(list(texts), add_special_tokens=False)
    whole = [_whole(encoding) for encoding in encodings]
    used = sorted({encoding.ids[i] for encoding, places in zip(encodings, whole, strict=True) for i in places})
    near = dict(zip(used, _neighbours(model, made, used), strict=True))
    random, found = np.random.default_rng(seed), list[str]()
    for _ in range(times):
        for text, encoding, places in zip(texts, encodings, whole, strict=True):
            new = text
            for place in places[random.random(len(places)) < SHARE][::-1]:  # from the end: offsets before it stay
                start, end = encoding.offsets[place]
                others = near[encoding.ids[place]]
                new = new[:start] + others[random.integers(len(others))] + new[end:]
            found.append(new)
    return found


def _whole(encoding: tokenizers.Encoding) -> NDArray[np.int64]:
    """Where a text has words of letters that are one piece."""
    words = encoding.word_ids
    return np.array(
        [
            place
            for place, (token, word) in enumerate(zip(encoding.tokens, words, strict=True))
            if _word(token) and words.count(word) == 1
        ],
        np.int64,
    )


def _word(piece: str) -> bool:
    return len(piece) > 1 and piece.isalpha()


def _neighbours(model: Encoder, tokenizer: tokenizers.Tokenizer, used: Sequence[int]) -> list[list[str]]:
    """For each of some words, by id, the at most ``NEIGHBOURS`` that are nearest to it."""
    pieces = sorted((index, piece) for piece, index in tokenizer.get_vocab().items() if _word(piece))
    alike = directions(model)
    candidates, count = alike[[index for index, _ in pieces]], min(NEIGHBOURS + 1, len(pieces))
    # the nearest is the word itself, which stays among them only where there are no others enough
    nearest = ((alike[index] @ candidates.T).topk(count).indices[-NEIGHBOURS:] for index in used)
    return [[pieces[i][1] for i in found.tolist()] for found in nearest]
