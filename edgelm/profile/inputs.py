"""The inputs that are measured: random token ids, always the same, or texts. Which ids they are changes no latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgelm.bundle import Bundle
from edgelm.errors import DataError
from edgelm.manifest import Manifest
from edgelm.runtimes import Ids
from edgelm.text import Tokenizer

__all__ = ["Request", "from_histogram", "from_texts", "token_ids"]

Request = tuple[Ids, Ids]
"""``input_ids`` and ``attention_mask``, int32, shape (batch, tokens)."""

_DRAWN = 1024


def token_ids(tokens: int, *, batch: int, vocab: int) -> Request:
    """One request of exactly so many tokens, without padding.

    Args:
        tokens: length of each row.
        batch: rows.
        vocab: ids are below this.

    Returns:
        The same for the same arguments.
    """
    random = np.random.default_rng(tokens)
    ids = random.integers(0, vocab, size=(batch, tokens), dtype=np.int32)
    return ids, np.ones((batch, tokens), dtype=np.int32)


def from_texts(bundle: Bundle, texts: Sequence[str]) -> list[Request]:
    """A request for each text, at its own length, longer ones cut as the model cuts them."""
    limit, pad = bundle.manifest.max_tokens, bundle.manifest.pad_token_id
    rows = Tokenizer(bundle.tokenizer, max_tokens=limit, pad_token_id=pad, tell=False).encode(texts)
    return [(row[None], np.ones_like(row)[None]) for row in rows]


def from_histogram(manifest: Manifest, weights: Mapping[int, float]) -> list[Request]:
    """Requests of random ids whose lengths are drawn by weight, always the same.

    Args:
        manifest: of the bundle.
        weights: of each length in tokens.

    Raises:
        DataError: a length is more than the bundle takes, or no weight is above zero.
    """
    longest, total = max(weights, default=0), sum(weights.values())
    if not 1 <= min(weights, default=0) <= longest <= manifest.max_tokens or total <= 0 or min(weights.values()) < 0:
        raise DataError(f"a histogram: expected lengths of 1 to {manifest.max_tokens} tokens with weights above 0")
    lengths = np.array(list(weights))
    shares = np.array(list(weights.values())) / total
    drawn = np.random.default_rng(0).choice(lengths, _DRAWN, p=shares)
    made = {int(length): token_ids(int(length), batch=1, vocab=manifest.model.vocab) for length in lengths}
    return [made[int(length)] for length in drawn]
