"""Feature extraction: a text's vector, pooled and, if the model does so, normalised inside the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.tasks.task import Exam, Floats, Task, text_of
from edgelm.text import Tokenizer, Window

__all__ = ["FeatureExtraction", "spearman"]


@dataclass(frozen=True)
class FeatureExtraction(Task):
    """Output: the vector, shape (dim,). Data files hold ``text_a``, ``text_b``, and how alike they are, ``score``."""

    OPTIONS = ("stride",)

    def parse(self, row: Mapping[str, Any], where: str) -> tuple[Any, float | None]:
        """See ``Task``."""
        if "text_a" not in row:
            return text_of(row, where), None
        score = row.get("score")
        if score is not None and not isinstance(score, int | float):
            raise DataError(f"{where}: expected a number under 'score', found {score!r}")
        return (text_of(row, where, "text_a"), text_of(row, where, "text_b")), score

    def cut(  # type: ignore[override]  # the option is its own
        self, tokenizer: Tokenizer, inputs: Sequence[str], *, stride: int | None = None
    ) -> list[list[Window]]:
        """See ``Task``; with ``stride``, a long text takes several windows."""
        if stride is None:
            return super().cut(tokenizer, inputs)
        return tokenizer.slide(inputs, None, stride=stride)

    def answer(
        self, tokenizer: Tokenizer, given: str, windows: Sequence[Window], outputs: Sequence[Floats], **options: Any
    ) -> Any:
        """The vector, a list of numbers.

        Args:
            tokenizer: that cut the text.
            given: the text.
            windows: of the text.
            outputs: one for each.
            options: ``stride``, the tokens that windows of a long text share; without it, a long text is cut.
        """
        del tokenizer, given, options
        return self.joined(windows, outputs).tolist()

    def joined(self, windows: Sequence[Window], outputs: Sequence[Floats]) -> Floats:
        """One vector, float32, for a text of several windows: their mean, each counted by its tokens.

        Where each has the length 1, so has the mean: the model normalises its vectors.
        """
        if len(outputs) == 1:
            return outputs[0]
        parts = np.stack(outputs).astype(np.float64)
        mean = np.average(parts, axis=0, weights=[len(window.ids) for window in windows])
        if np.allclose(np.linalg.norm(parts, axis=1), 1, atol=1e-3):
            mean /= max(float(np.linalg.norm(mean)), 1e-12)
        found: Floats = mean.astype(np.float32)
        return found

    def exam(self, tokenizer: Tokenizer, inputs: Sequence[Any], gold: Sequence[Any] | None) -> Exam:
        """Both texts of each pair."""
        texts = [text for one in inputs for text in ([one] if isinstance(one, str) else one)]
        cut = iter(tokenizer.windows(texts))
        return Exam(inputs, [[next(cut)] if isinstance(one, str) else [next(cut), next(cut)] for one in inputs], gold)

    def choices(self, output: Floats) -> Floats:
        """None: a vector decides nothing."""
        return output[None][:0]

    def alike(self, one: Floats, other: Floats) -> float:
        """The cosine of the two vectors, to six digits: float32 has no more."""
        return round(_cosine(one, other), 6)

    def scores(self, exam: Exam, kept: Sequence[Sequence[Floats]]) -> list[Score]:
        """Spearman's rank correlation between the cosines and how alike people found the texts."""
        assert exam.gold is not None
        cosines = np.array([_cosine(outputs[0], outputs[1]) for outputs in kept])
        return [Score(metric="spearman", value=spearman(cosines, np.array(exam.gold, np.float64)), n=len(kept))]


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Rank correlation of two series [Spearman 1904]: Pearson's of the ranks, ties sharing their mean rank."""
    return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    found: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return found


def _cosine(one: Floats, other: Floats) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / max(lengths, 1e-12)
