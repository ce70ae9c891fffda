"""Token classification: named entities, with where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.tasks.task import Exam, Floats, Task, softmax, text_of
from edgelm.text import Tokenizer, Window

__all__ = ["TokenClassification", "chunks"]

Strategy = Literal["none", "simple", "first", "average", "max"]
OUTSIDE = "O"


@dataclass(frozen=True)
class _Piece:
    """A token that is text, or a word made of several."""

    word: str
    scores: NDArray[np.float64]
    start: int
    end: int
    index: int
    goes_on: bool


@dataclass(frozen=True)
class TokenClassification(Task):
    """Output: logits, shape (tokens, labels). Data files hold ``tokens`` and ``tags`` in IOB2."""

    labels: tuple[str, ...]
    OPTIONS = ("aggregation_strategy", "stride")

    def parse(self, row: Mapping[str, Any], where: str) -> tuple[str, Any]:
        """See ``Task``."""
        if "tokens" not in row:
            return text_of(row, where), None
        words, tags = row["tokens"], row.get("tags")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise DataError(f"{where}: expected a list of words under 'tokens'")
        text = " ".join(words)
        if tags is None:
            return text, None
        if not isinstance(tags, list) or len(tags) != len(words):
            raise DataError(f"{where}: expected as many 'tags' as 'tokens'")
        unknown = sorted({str(tag) for tag in tags} - {*self.labels, OUTSIDE})
        if unknown:
            raise DataError(f"{where}: tag '{unknown[0]}' is not one of the model's {len(self.labels)} labels")
        starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
        return text, tuple(
            (int(start), int(start) + len(word), tag) for start, word, tag in zip(starts, words, tags, strict=True)
        )

    def cut(  # type: ignore[override]  # the options are its own
        self,
        tokenizer: Tokenizer,
        inputs: Sequence[str],
        *,
        aggregation_strategy: Strategy = "none",
        stride: int | None = None,
    ) -> list[list[Window]]:
        """See ``Task``; with ``stride``, a long text takes several windows."""
        if aggregation_strategy not in get_args(Strategy):
            raise DataError(
                f"aggregation_strategy: expected one of {', '.join(get_args(Strategy))}, found {aggregation_strategy!r}"
            )
        if stride is None:
            return super().cut(tokenizer, inputs)
        if aggregation_strategy == "none":
            raise DataError(
                "stride: tokens of windows that overlap would be told twice; ask for another aggregation_strategy"
            )
        return tokenizer.slide(inputs, None, stride=stride)

    def answer(  # type: ignore[override]  # the options are its own
        self,
        tokenizer: Tokenizer,
        given: str,
        windows: Sequence[Window],
        outputs: Sequence[Floats],
        *,
        aggregation_strategy: Strategy = "none",
        stride: int | None = None,
    ) -> Any:
        """Entities in the order of the text, ``start`` and ``end`` in characters of it; what is outside is left out.

        Args:
            tokenizer: that cut the text.
            given: the text.
            windows: of the text.
            outputs: one for each.
            aggregation_strategy: ``none`` gives each token: ``entity``, ``score``, ``index``, ``word``, ``start``,
                ``end``. The others join tokens of one entity: ``entity_group``, ``score``, ``word``, ``start``,
                ``end``; a word whose tokens disagree is split by ``simple``, and else is what its ``first`` token says,
                the ``average`` of them, or the surest (``max``).
            stride: tokens that windows of a long text share; without it, a long text is cut.
        """
        del stride
        found = []
        for window, output in zip(windows, outputs, strict=True):
            pieces = list(self._pieces(tokenizer, given, window, output))
            if aggregation_strategy not in ("none", "simple"):
                pieces = list(_as_words(tokenizer, pieces, aggregation_strategy))
            if aggregation_strategy == "none":
                found += [self._token(piece) for piece in pieces]
            else:
                found += [self._group(tokenizer, group) for group in self._groups(pieces)]
        kept = [one for one in found if one.get("entity", one.get("entity_group")) != OUTSIDE]
        return kept if len(windows) == 1 else _longest(kept)

    def _pieces(self, tokenizer: Tokenizer, text: str, window: Window, output: Floats) -> Iterator[_Piece]:
        scores = softmax(output)
        for index in np.flatnonzero(window.parts == 0):
            start, end = (int(one) for one in window.spans[index])
            token, unknown = window.tokens[index], tokenizer.is_unknown(int(window.ids[index]))
            if tokenizer.marks_continuations:
                goes_on = len(token) != end - start
            else:  # a byte-level vocabulary marks the beginning of words, and only where a space stands before
                goes_on = start > 0 and " " not in text[start - 1 : start + 1]
            word = text[start:end] if unknown else token
            yield _Piece(word, scores[index], start, end, int(index), goes_on and not unknown)

    def _label(self, piece: _Piece) -> str:
        return self.labels[int(piece.scores.argmax())]

    def _token(self, piece: _Piece) -> dict[str, Any]:
        return {
            "entity": self._label(piece),
            "score": float(piece.scores.max()),
            "index": piece.index,
            "word": piece.word,
            "start": piece.start,
            "end": piece.end,
        }

    def _groups(self, pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
        """Neighbours of one kind; B- begins a new one."""
        group: list[_Piece] = []
        for piece in pieces:
            label = self._label(piece)
            if group and (label.startswith("B-") or _kind(label) != _kind(self._label(group[-1]))):
                yield group
                group = []
            group.append(piece)
        if group:
            yield group

    def _group(self, tokenizer: Tokenizer, group: Sequence[_Piece]) -> dict[str, Any]:
        return {
            "entity_group": self._label(group[0]).split("-", 1)[-1],
            "score": float(np.mean([piece.scores.max() for piece in group])),
            "word": tokenizer.join([piece.word for piece in group]),
            "start": group[0].start,
            "end": group[-1].end,
        }

    def scores(self, exam: Exam, kept: Sequence[Sequence[Floats]]) -> list[Score]:
        """F1 of whole entities; a word is what its first token says, and outside if it was cut off."""
        assert exam.gold is not None
        said, right, both = 0, 0, 0
        for windows, outputs, words in zip(exam.windows, kept, exam.gold, strict=True):
            found = chunks(self._tags(windows[0], outputs[0], words))
            gold = chunks([tag for _, _, tag in words])
            said, right, both = said + len(found), right + len(gold), both + len(found & gold)
        return [Score(metric="f1", value=2 * both / (said + right) if said + right else 1.0, n=len(kept))]

    def _tags(self, window: Window, output: Floats, words: Sequence[tuple[int, int, str]]) -> list[str]:
        inside = np.flatnonzero(window.parts == 0)
        starts, labels = window.spans[inside, 0], output[inside].argmax(-1)
        found = []
        for start, end, _ in words:
            at = int(np.searchsorted(starts, start))
            found.append(self.labels[labels[at]] if at < len(starts) and starts[at] < end else OUTSIDE)
        return found


def chunks(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Entities of a sequence of IOB2 tags as (first, last, kind), an I- that follows nothing of its kind begins one.

    The rules are those of CoNLL's evaluation script [Tjong Kim Sang 2000], which seqeval has too.
    """
    found, begin = set(), 0
    for index, tag in enumerate([*tags, OUTSIDE]):
        before = tags[index - 1] if index else OUTSIDE
        if before != OUTSIDE and (tag == OUTSIDE or tag.startswith("B-") or _kind(tag) != _kind(before)):
            found.add((begin, index - 1, _kind(before)))
        if tag != OUTSIDE and (before == OUTSIDE or tag.startswith("B-") or _kind(tag) != _kind(before)):
            begin = index
    return found


def _kind(label: str) -> str:
    return label[2:] if label[:2] in ("B-", "I-") else label


def _as_words(tokenizer: Tokenizer, pieces: Sequence[_Piece], strategy: Strategy) -> Iterator[_Piece]:
    words: list[list[_Piece]] = []
    for piece in pieces:
        if words and piece.goes_on:
            words[-1].append(piece)
        else:
            words.append([piece])
    for word in words:
        every = [piece.scores for piece in word]
        scores = {
            "first": lambda every=every: every[0],
            "average": lambda every=every: np.mean(every, axis=0),
            "max": lambda every=every: max(every, key=lambda one: one.max()),
        }[strategy]()
        text = tokenizer.join([piece.word for piece in word])
        yield _Piece(text, scores, word[0].start, word[-1].end, word[0].index, goes_on=False)


def _longest(entities: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of those that overlap, because windows do, the longest, then the surest."""
    found: list[dict[str, Any]] = []
    for one in sorted(entities, key=lambda one: int(one["start"])):
        if not found or not found[-1]["start"] <= one["start"] < found[-1]["end"]:
            found.append(one)
        elif (one["end"] - one["start"], one["score"]) > (found[-1]["end"] - found[-1]["start"], found[-1]["score"]):
            found[-1] = one
    return found
