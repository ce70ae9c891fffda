"""Text classification: one label of several, or each label by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.tasks.task import Exam, Floats, Task, softmax, text_of
from edgelm.text import Tokenizer, Window

__all__ = ["Answer", "MultiLabel", "TextClassification", "accuracy"]


class Answer(TypedDict):
    """One label with its probability."""

    label: str
    score: float


@dataclass(frozen=True)
class TextClassification(Task):
    """One label of several. Output: logits, shape (classes,)."""

    labels: tuple[str, ...]
    OPTIONS = ("top_k",)

    def parse(self, row: Mapping[str, Any], where: str) -> tuple[str, int | None]:
        """See ``Task``."""
        text = text_of(row, where)
        return text, _label_index(row["label"], self.labels, where) if "label" in row else None

    def answer(  # type: ignore[override]  # the options are its own
        self,
        tokenizer: Tokenizer,
        given: str,
        windows: Sequence[Window],
        outputs: Sequence[Floats],
        *,
        top_k: int | None = 0,
    ) -> Any:
        """``{"label": str, "score": float}``, or with ``top_k`` (all with None) a list of those, best first."""
        del tokenizer, given, windows
        if top_k is not None and top_k < 0:
            raise DataError(f"top_k: expected a positive number or None, found {top_k}")
        found = _best(self.probabilities(outputs[0]), self.labels, len(self.labels) if top_k is None else top_k or 1)
        return found[0] if top_k == 0 else found

    def probabilities(self, output: Floats) -> NDArray[np.float64]:
        """Of each label."""
        return softmax(output)

    def choices(self, output: Floats) -> Floats:
        """One: which label."""
        return output[None]

    def scores(self, exam: Exam, kept: Sequence[Sequence[Floats]]) -> list[Score]:
        """Accuracy."""
        return [accuracy(np.stack([outputs[0] for outputs in kept]), np.array(exam.gold, np.int64))]


class MultiLabel(TextClassification):
    """Each label by itself, with a sigmoid. Output: logits, shape (classes,)."""

    def parse(self, row: Mapping[str, Any], where: str) -> tuple[str, Any]:
        """See ``Task``."""
        text = text_of(row, where)
        if "labels" not in row:
            return text, None
        if not isinstance(row["labels"], list):
            raise DataError(f"{where}: expected a list under 'labels'")
        gold = np.zeros(len(self.labels), bool)
        for label in row["labels"]:
            gold[_label_index(label, self.labels, where)] = True
        return text, gold

    def probabilities(self, output: Floats) -> NDArray[np.float64]:
        """Of each label."""
        return 1 / (1 + np.exp(-np.clip(output.astype(np.float64), -500, 500)))

    def choices(self, output: Floats) -> Floats:
        """Of each label, whether."""
        return np.stack([np.zeros_like(output), output], -1)

    def scores(self, exam: Exam, kept: Sequence[Sequence[Floats]]) -> list[Score]:
        """F1 over all pairs of text and label, those with a probability of a half or more being said."""
        assert exam.gold is not None
        said, gold = np.stack([outputs[0] for outputs in kept]) >= 0, np.stack(list(exam.gold))
        both, either = int((said & gold).sum()), int(said.sum() + gold.sum())
        return [Score(metric="f1", value=2 * both / either if either else 1.0, n=len(kept))]


def accuracy(logits: Floats, gold: NDArray[np.int64]) -> Score:
    """The share of rows whose largest logit is that of the gold class.

    Args:
        logits: float32, shape (rows, classes).
        gold: int64, shape (rows,).
    """
    return Score(metric="accuracy", value=float((logits.argmax(-1) == gold).mean()), n=len(gold))


def _label_index(label: object, labels: Sequence[str], where: str) -> int:
    """The class of a label.

    Raises:
        DataError: it is not one of the model's.
    """
    if isinstance(label, str) and label in labels:
        return labels.index(label)
    import difflib

    near = difflib.get_close_matches(str(label), labels, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"the first are {', '.join(labels[:5])}"
    raise DataError(f"{where}: label '{label}' is not one of the model's {len(labels)} labels; {hint}")


def _best(scores: NDArray[np.float64], labels: Sequence[str], count: int) -> list[Answer]:
    best = np.argsort(-scores, kind="stable")[:count]
    return [Answer(label=labels[index], score=float(scores[index])) for index in best]
