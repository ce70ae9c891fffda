"""The inputs that are measured: random token ids, always the same. Which ids they are does not change the latency."""

from __future__ import annotations

import numpy as np

from edgelm.runtimes import Ids

__all__ = ["token_ids"]


def token_ids(tokens: int, *, batch: int, vocab: int) -> tuple[Ids, Ids]:
    """One request of exactly so many tokens, without padding.

    Args:
        tokens: length of each row.
        batch: rows.
        vocab: ids are below this.

    Returns:
        ``input_ids`` and ``attention_mask``, int32, shape (batch, tokens). The same for the same arguments.
    """
    random = np.random.default_rng(tokens)
    ids = random.integers(0, vocab, size=(batch, tokens), dtype=np.int32)
    return ids, np.ones((batch, tokens), dtype=np.int32)
