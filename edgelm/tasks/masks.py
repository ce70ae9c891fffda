"""Masked language model: what stands behind a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.tasks.task import Exam, Floats, Task, log_softmax, softmax, text_of
from edgelm.text import Tokenizer, Window

__all__ = ["FillMask"]

_EVERY = 7
"""One token in seven is masked to score a model, about the 15 % that it was trained with [Devlin 2019]."""
_TEXTS = 100
"""A score is taken on so many texts at most: each of their masked tokens has a logit for every piece there is."""


@dataclass(frozen=True)
class FillMask(Task):
    """Output: logits, shape (tokens, vocabulary)."""

    mask_token_id: int
    OPTIONS = ("top_k", "targets")
    PARITY_ROWS = 16

    def parse(self, row: Mapping[str, Any], where: str) -> tuple[str, None]:
        """See ``Task``."""
        return text_of(row, where), None

    def cut(self, tokenizer: Tokenizer, inputs: Sequence[str], **options: Any) -> list[list[Window]]:
        """See ``Task``; each text must have a mask."""
        del options
        windows = tokenizer.windows(inputs)
        for index, window in enumerate(windows):
            if self.mask_token_id not in window.ids:
                which = f"text {index}" if len(inputs) > 1 else "the text"
                raise DataError(f"{which} has no {tokenizer.piece(self.mask_token_id)}: expected one where to fill in")
        return [[window] for window in windows]

    def answer(  # type: ignore[override]  # the options are its own
        self,
        tokenizer: Tokenizer,
        given: str,
        windows: Sequence[Window],
        outputs: Sequence[Floats],
        *,
        top_k: int = 5,
        targets: str | Sequence[str] | None = None,
    ) -> Any:
        """The likeliest pieces, best first: ``score``, ``token``, ``token_str``, ``sequence``.

        Where a text has several masks, a list of such lists, one for each.

        Args:
            tokenizer: that cut the text.
            given: the text.
            windows: one.
            outputs: one.
            top_k: how many.
            targets: choose among these pieces alone.
        """
        del given
        ids = windows[0].ids
        places = np.flatnonzero(ids == self.mask_token_id)
        wanted = None if targets is None else _targets(tokenizer, [targets] if isinstance(targets, str) else targets)
        found = []
        for place in places:
            scores = softmax(outputs[0][place])
            among = np.arange(len(scores)) if wanted is None else wanted
            best = among[np.argsort(-scores[among], kind="stable")[:top_k]]
            found.append(
                [self._filled(tokenizer, ids, place, int(p), float(scores[p]), len(places) == 1) for p in best]
            )
        return found[0] if len(found) == 1 else found

    def _filled(
        self, tokenizer: Tokenizer, ids: Any, place: Any, piece: int, score: float, bare: bool
    ) -> dict[str, Any]:
        filled = ids.copy()
        filled[place] = piece
        words = tokenizer.decode(filled, bare=bare)
        return {"score": score, "token": piece, "token_str": tokenizer.decode([piece], bare=False), "sequence": words}

    def exam(self, tokenizer: Tokenizer, inputs: Sequence[str], gold: Sequence[Any] | None) -> Exam:
        """The texts with a mask for every seventh token; which ones is decided by the text's index. Gold: their ids."""
        del gold
        windows, hidden = [], []
        for index, window in enumerate(tokenizer.windows(inputs[:_TEXTS])):
            places = np.flatnonzero((window.parts == 0) & ((np.arange(len(window.ids)) + index) % _EVERY == 0))
            ids = window.ids.copy()
            ids[places] = self.mask_token_id
            windows.append([window.replaced(ids)])
            hidden.append(window.ids[places])
        return Exam(inputs[:_TEXTS], windows, hidden)

    def keep(self, window: Window, output: Floats) -> Floats:
        """Of the masked tokens."""
        masked: Floats = output[window.ids == self.mask_token_id]
        return masked

    def scores(self, exam: Exam, kept: Sequence[Sequence[Floats]]) -> list[Score]:
        """Perplexity of the masked tokens, each given all that is not masked."""
        assert exam.gold is not None
        pairs = zip(kept, exam.gold, strict=True)
        every = np.concatenate([log_softmax(outputs[0])[np.arange(len(ids)), ids] for outputs, ids in pairs])
        return [Score(metric="perplexity", value=float(np.exp(-every.mean())), n=len(every))]


def _targets(tokenizer: Tokenizer, pieces: Sequence[str]) -> Any:
    """Their ids.

    Raises:
        DataError: one is not in the vocabulary.
    """
    ids = [tokenizer.id(piece) for piece in pieces]
    unknown = [piece for piece, found in zip(pieces, ids, strict=True) if found is None]
    if unknown or not ids:
        raise DataError(f"targets: expected pieces of the vocabulary, found {', '.join(unknown) or 'none'}")
    return np.array(sorted({one for one in ids if one is not None}))
