"""Text to token ids. The rules are those of ``tokenizer.json``; what happens here is checking, cutting and padding."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tokenizers
from numpy.typing import NDArray

from edgelm.errors import DataError

__all__ = ["Tokenizer"]

_log = logging.getLogger("edgelm")


class Tokenizer:
    """A tokenizer with one limit.

    Attributes:
        max_tokens: longer texts are cut to this many tokens, special ones included.
        pad_token_id: what shorter rows of a batch are filled with.
    """

    def __init__(self, content: bytes, *, max_tokens: int, pad_token_id: int, tell: bool = True) -> None:
        """Read a tokenizer.

        Args:
            content: of ``tokenizer.json``; truncation and padding set in it are not used.
            max_tokens: the limit.
            pad_token_id: see above.
            tell: log a warning when a text is cut for the first time.

        Raises:
            DataError: the content is not a tokenizer.
        """
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        except Exception as exc:  # the wheel raises bare Exception
            raise DataError(f"tokenizer.json cannot be read: {exc}") from exc
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self.max_tokens, self.pad_token_id = max_tokens, pad_token_id
        self._told = not tell

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, int32, shape (tokens,), of at least one and at most ``max_tokens``.

        Raises:
            DataError: something among them is not text; it says which.
        """
        for index, text in enumerate(texts):
            _check(text, f"text {index}" if len(texts) > 1 else "the text")
        found = self._tokenizer.encode_batch(list(texts))
        if not self._told and any(encoding.overflowing for encoding in found):
            self._told = True
            _log.warning("a text was cut to %d tokens, the limit of this model; said once", self.max_tokens)
        return [np.array(encoding.ids, np.int32) for encoding in found]

    def known(self, texts: Sequence[str]) -> float:
        """The share of words that are whole in the vocabulary, neither cut nor ``[UNK]``; 1.0 if there are no words."""
        words = whole = 0
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False):
            pieces = Counter(encoding.word_ids)
            lost = {word for word, token in zip(encoding.word_ids, encoding.tokens, strict=True) if token == unknown}
            words += len(pieces)
            whole += sum(count == 1 for word, count in pieces.items() if word not in lost)
        return whole / words if words else 1.0

    def batch(
        self, rows: Sequence[NDArray[np.int32]], length: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(input_ids, attention_mask), int32, shape (rows, length), padded on the right.

        Args:
            rows: token ids.
            length: at least the longest row's, which is the default.
        """
        length = length or max(len(row) for row in rows)
        input_ids = np.full((len(rows), length), self.pad_token_id, np.int32)
        attention_mask = np.zeros((len(rows), length), np.int32)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            attention_mask[index, : len(row)] = 1
        return input_ids, attention_mask


def _check(text: object, which: str) -> None:
    if not isinstance(text, str):
        raise DataError(f"{which} is not text: expected str, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise DataError(f"{which} holds half of a surrogate pair at {exc.start}: expected valid Unicode") from exc
