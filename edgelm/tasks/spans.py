"""Extractive question answering: where in a context the answer to a question stands."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.tasks.task import Exam, Floats, Task, softmax, text_of
from edgelm.text import Tokenizer, Window

__all__ = ["QuestionAnswering", "squad"]

_MASKED = -10000.0


@dataclass(frozen=True)
class QuestionAnswering(Task):
    """Output: logits of the first and of the last token of the answer, shape (tokens, 2)."""

    OPTIONS = ("top_k", "max_answer_len", "handle_impossible_answer", "doc_stride")

    def parse(self, row: Mapping[str, Any], where: str) -> tuple[dict[str, str], tuple[str, ...] | None]:
        """See ``Task``."""
        given = {key: text_of(row, where, key) for key in ("question", "context")}
        answers = row.get("answers")
        if answers is None:
            return given, None
        texts = answers.get("text") if isinstance(answers, Mapping) else answers
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"{where}: expected a list of texts under 'answers'")
        return given, tuple(texts)

    def sample(self, texts: Sequence[str]) -> tuple[dict[str, str], ...]:
        """The same question to each text: it must be short, for the text to have room."""
        return tuple({"question": "What is this about?", "context": text} for text in texts)

    def cut(
        self, tokenizer: Tokenizer, inputs: Sequence[Any], *, doc_stride: int = 128, **options: Any
    ) -> list[list[Window]]:
        """See ``Task``: windows of the context, each after the question."""
        del options
        for index, given in enumerate(inputs):
            if not isinstance(given, Mapping) or not {"question", "context"} <= set(given):
                which = f"input {index}" if len(inputs) > 1 else "the input"
                raise DataError(
                    f"{which}: expected a mapping with 'question' and 'context', found {type(given).__name__}"
                )
        questions, contexts = ([given[key] for given in inputs] for key in ("question", "context"))
        return tokenizer.slide(questions, contexts, stride=min(doc_stride, tokenizer.max_tokens // 2))

    def answer(  # type: ignore[override]  # the options are its own
        self,
        tokenizer: Tokenizer,
        given: Mapping[str, str],
        windows: Sequence[Window],
        outputs: Sequence[Floats],
        *,
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        doc_stride: int = 128,
    ) -> Any:
        """``score``, ``start``, ``end`` (characters of the context), ``answer``; a list of such with ``top_k`` over 1.

        Args:
            tokenizer: that cut the context.
            given: ``question`` and ``context``.
            windows: of the context, each with the question before it.
            outputs: one for each.
            top_k: how many.
            max_answer_len: in tokens.
            handle_impossible_answer: "" may be the answer, if the model puts it at the first token.
            doc_stride: tokens that windows of a long context share.
        """
        del tokenizer, doc_stride
        best: dict[tuple[int, int], float] = {}
        nothing = 1.0
        for window, output in zip(windows, outputs, strict=True):
            first, last, null = _probabilities(window, output)
            nothing = min(nothing, null)
            for s, e, score in _likeliest(first, last, top_k, max_answer_len):
                place = _characters(window, s, e)
                best[place] = max(score, best.get(place, 0.0))
        context = given["context"]
        found = [{"score": score, "start": s, "end": e, "answer": context[s:e]} for (s, e), score in best.items()]
        if handle_impossible_answer:
            found.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
        found = sorted(found, key=lambda one: -float(one["score"]))[:top_k]  # type: ignore[arg-type]
        empty = {"score": 0.0, "start": 0, "end": 0, "answer": ""}
        return (found[0] if found else empty) if top_k == 1 else found

    def choices(self, output: Floats) -> Floats:
        """Where the answer begins, and where it ends."""
        return output.T

    def scores(self, exam: Exam, kept: Sequence[Sequence[Floats]]) -> list[Score]:
        """F1 and exact match, by the rules of SQuAD."""
        assert exam.gold is not None
        marks = []
        for given, windows, outputs, answers in zip(exam.inputs, exam.windows, kept, exam.gold, strict=True):
            said = self.answer(None, given, windows, outputs)["answer"]  # type: ignore[arg-type]
            marks.append(squad(said, answers))
        f1, exact = np.array(marks).mean(0).tolist()
        return [Score(metric="f1", value=f1, n=len(marks)), Score(metric="exact_match", value=exact, n=len(marks))]


def squad(said: str, answers: Sequence[str]) -> tuple[float, float]:
    """(F1, exact match) of one answer, the best over all that are right [Rajpurkar 2016, official script of SQuAD 1.1].

    Case, punctuation, articles and white space do not count; F1 is over the words as a bag. Where no answer is right,
    only "" is.
    """
    pairs = [(_words(said), _words(answer)) for answer in answers or ("",)]
    return max(_f1(a, b) for a, b in pairs), float(max(a == b for a, b in pairs))


def _words(text: str) -> list[str]:
    bare = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right))


def _probabilities(window: Window, output: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Of each token to be the answer's first, and its last; and of no answer, which is read at the first token."""
    open_ = window.parts == 1
    open_[0] = True
    first, last = softmax(np.where(open_[:, None], output, _MASKED).T)
    null = float(first[0] * last[0])
    first[0] = last[0] = 0.0
    return first, last, null


def _likeliest(
    first: NDArray[np.float64], last: NDArray[np.float64], count: int, longest: int
) -> list[tuple[int, int, float]]:
    """The best (first, last, probability), the last not before the first and at most ``longest`` tokens in all."""
    scores = np.tril(np.triu(np.outer(first, last)), longest - 1)
    order = np.argsort(-scores, axis=None, kind="stable")[:count]
    starts, ends = np.unravel_index(order, scores.shape)
    return [(int(s), int(e), float(scores[s, e])) for s, e in zip(starts, ends, strict=True) if scores[s, e] > 0]


def _characters(window: Window, first: int, last: int) -> tuple[int, int]:
    """Where the whole words of these tokens stand in the context."""
    context = window.parts == 1
    start = window.spans[context & (window.words == window.words[first]), 0].min()
    end = window.spans[context & (window.words == window.words[last]), 1].max()
    return int(start), int(end)
