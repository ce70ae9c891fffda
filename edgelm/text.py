"""Text to token ids. The rules are those of ``tokenizer.json``; what happens here is checking, cutting and padding."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from edgelm.errors import DataError

__all__ = ["Tokenizer", "Window", "padded", "sample"]

_log = logging.getLogger("edgelm")


class Window:
    """What a model reads at once: a text, or as much of it as fits.

    What only some tasks ask for is made when it is first asked for; a classifier wants the ids alone.

    Attributes:
        ids: token ids, int32, shape (tokens,).
    """

    def __init__(self, encoding: Any) -> None:
        """Of what the tokenizers package gives for a text."""
        self._encoding = encoding
        self.ids: NDArray[np.int32] = np.array(encoding.ids, np.int32)

    def replaced(self, ids: NDArray[np.int32]) -> Window:
        """The same with other ids, of the same shape."""
        made = copy.copy(self)
        made.ids = ids
        return made

    @cached_property
    def spans(self) -> NDArray[np.int32]:
        """First character and the one after the last of each token in its text, int32, shape (tokens, 2)."""
        return np.array(self._encoding.offsets, np.int32).reshape(-1, 2)

    @cached_property
    def parts(self) -> NDArray[np.int8]:
        """Which text each token is of: 0, 1 for the second of a pair, -1 for special tokens; int8, shape (tokens,)."""
        special = np.array(self._encoding.special_tokens_mask, bool)
        parts = np.array([-1 if part is None else part for part in self._encoding.sequence_ids], np.int8)
        return np.where(special, np.int8(-1), parts)

    @cached_property
    def words(self) -> NDArray[np.int32]:
        """Which word of its text each token is of, int32, shape (tokens,); -1 for special tokens."""
        return np.array([-1 if word is None else word for word in self._encoding.word_ids], np.int32)

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """As the vocabulary spells them."""
        return tuple(self._encoding.tokens)


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
        self._content, self._sliding = content, dict[tuple[int, bool], tokenizers.Tokenizer]()
        self.max_tokens, self.pad_token_id = max_tokens, pad_token_id
        self._told = not tell

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Token ids of each text, int32, shape (tokens,), of at least one and at most ``max_tokens``.

        Raises:
            DataError: something among them is not text; it says which.
        """
        return [np.array(encoding.ids, np.int32) for encoding in self._encoded(texts)]

    def windows(self, texts: Sequence[str]) -> list[Window]:
        """The same with all that is known of each token.

        Raises:
            DataError: as ``encode``.
        """
        return [Window(encoding) for encoding in self._encoded(texts)]

    def slide(self, texts: Sequence[str], seconds: Sequence[str] | None, *, stride: int) -> list[list[Window]]:
        """Each text whole, in as many windows as it takes.

        Args:
            texts: the texts.
            seconds: a second text for each, which is then what slides; the first is in every window.
            stride: tokens that neighbouring windows share.

        Raises:
            DataError: as ``encode``; or a stride, or a first text, that leaves no room.
        """
        for index, text in enumerate([*texts, *(seconds or ())]):
            _check(text, f"text {index % len(texts)}" if len(texts) > 1 else "the text")
        tokenizer = self._slider(stride, pairs=seconds is not None)
        if seconds is None:
            return [_unrolled(encoding) for encoding in tokenizer.encode_batch(list(texts))]
        room = self.max_tokens - stride - tokenizer.num_special_tokens_to_add(True)
        lengths = [len(e.ids) for e in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        for index, length in enumerate(lengths):
            if length >= room:
                which = f"question {index}" if len(texts) > 1 else "the question"
                raise DataError(
                    f"{which} has {length} tokens: expected fewer than {room}, to leave room for the context"
                )
        return [_unrolled(encoding) for encoding in tokenizer.encode_batch(list(zip(texts, seconds, strict=True)))]

    def piece(self, index: int) -> str:
        """How the vocabulary spells a token."""
        return str(self._tokenizer.id_to_token(index))

    def id(self, piece: str) -> int | None:
        """The token of this spelling; None if there is none."""
        found: int | None = self._tokenizer.token_to_id(piece)
        return found

    def is_unknown(self, index: int) -> bool:
        """Whether this token stands for what the vocabulary has not."""
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        return unknown is not None and index == self._tokenizer.token_to_id(unknown)

    @property
    def marks_continuations(self) -> bool:
        """Whether pieces inside a word are spelled with a mark, as WordPiece does."""
        return bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))

    def decode(self, ids: Sequence[int] | NDArray[np.int32], *, bare: bool) -> str:
        """Text of token ids; without the special ones, if ``bare``."""
        return str(self._tokenizer.decode([int(one) for one in ids], skip_special_tokens=bare))

    def join(self, tokens: Sequence[str]) -> str:
        """Text of tokens as the vocabulary spells them."""
        decoder = self._tokenizer.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))

    def _encoded(self, texts: Sequence[str]) -> list[Any]:
        for index, text in enumerate(texts):
            _check(text, f"text {index}" if len(texts) > 1 else "the text")
        found: list[Any] = self._tokenizer.encode_batch(list(texts))
        if not self._told and any(encoding.overflowing for encoding in found):
            self._told = True
            _log.warning("a text was cut to %d tokens, the limit of this model; said once", self.max_tokens)
        return found

    def _slider(self, stride: int, *, pairs: bool) -> tokenizers.Tokenizer:
        """One that slides: made once for each stride, since truncation is a state of it and threads share it."""
        if not 0 <= stride < self.max_tokens - self._tokenizer.num_special_tokens_to_add(pairs):
            raise DataError(f"stride {stride}: expected fewer tokens than the limit of this model, {self.max_tokens}")
        key = stride, pairs
        if key not in self._sliding:
            made = tokenizers.Tokenizer.from_str(self._content.decode("utf-8"))
            made.no_padding()
            made.enable_truncation(self.max_tokens, stride=stride, strategy="only_second" if pairs else "longest_first")
            self._sliding[key] = made
        return self._sliding[key]

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
        return padded(rows, self.pad_token_id, length)


def padded(
    rows: Sequence[NDArray[np.int32]], pad_token_id: int, length: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(input_ids, attention_mask), int32, shape (rows, length), padded on the right; see ``Tokenizer.batch``."""
    length = length or max(len(row) for row in rows)
    input_ids = np.full((len(rows), length), pad_token_id, np.int32)
    attention_mask = np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)], attention_mask[index, : len(row)] = row, 1
    return input_ids, attention_mask


def sample() -> tuple[str, ...]:
    """The texts that ship with edgelm, for where none are given: 200 of all kinds and lengths."""
    content = resources.files("edgelm").joinpath("sample.txt").read_text(encoding="utf-8")
    return tuple(line for line in content.split("\n") if line)


def _unrolled(encoding: Any) -> list[Window]:
    return [Window(encoding), *(Window(one) for one in encoding.overflowing)]


def _check(text: object, which: str) -> None:
    if not isinstance(text, str):
        raise DataError(f"{which} is not text: expected str, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise DataError(f"{which} holds half of a surrogate pair at {exc.start}: expected valid Unicode") from exc
