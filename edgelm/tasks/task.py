"""What every task offers, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.text import Tokenizer, Window

__all__ = ["Exam", "Floats", "Task", "agreement", "check_options", "log_softmax", "softmax", "text_of"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Exam:
    """What is run to measure a model.

    Attributes:
        inputs: the examples.
        windows: of each example, what the model reads: more than one where it is longer than the model's limit.
        gold: of each example, what is right; None where nobody knows.
    """

    inputs: Sequence[Any]
    windows: Sequence[Sequence[Window]]
    gold: Sequence[Any] | None


class Task(ABC):
    """One task of an encoder. What is not said otherwise is that of a task that reads one text at once.

    Attributes:
        OPTIONS: what ``edgelm.Model`` can be asked for besides the inputs.
        PARITY_ROWS: how many windows an artifact is compared with its module on, all outputs of both in memory.
    """

    OPTIONS: ClassVar[tuple[str, ...]] = ()
    PARITY_ROWS: ClassVar[int] = 300

    @abstractmethod
    def parse(self, row: Mapping[str, Any], where: str) -> tuple[Any, Any]:
        """(input, gold) of one line of a data file; gold is None where the line has none.

        Raises:
            DataError: naming ``where``, and what was expected there.
        """

    def sample(self, texts: Sequence[str]) -> tuple[Any, ...]:
        """Inputs made of plain texts, for where no data is given: enough to compare outputs, not to score them."""
        return tuple(texts)

    def cut(self, tokenizer: Tokenizer, inputs: Sequence[Any], **options: Any) -> list[list[Window]]:
        """What the model reads of each input: one window or several.

        Raises:
            DataError: an input is not of this task; it says which.
        """
        del options
        return [[window] for window in tokenizer.windows(inputs)]

    @abstractmethod
    def answer(
        self, tokenizer: Tokenizer, given: Any, windows: Sequence[Window], outputs: Sequence[Floats], **options: Any
    ) -> Any:
        """The answer to one input, in plain JSON values.

        Args:
            tokenizer: that cut the input.
            given: the input.
            windows: of the input.
            outputs: the model's, for each of them.
            options: some of ``OPTIONS``.
        """

    def exam(self, tokenizer: Tokenizer, inputs: Sequence[Any], gold: Sequence[Any] | None) -> Exam:
        """What is run to score a model on these examples."""
        return Exam(inputs, self.cut(tokenizer, inputs), gold)

    def keep(self, window: Window, output: Floats) -> Floats:
        """The part of an output that the score needs."""
        del window
        return output

    def choices(self, output: Floats) -> Floats:
        """An output as decisions: logits, shape (decisions, choices)."""
        return output

    def alike(self, one: Floats, other: Floats) -> float:
        """How far two outputs for the same window say the same, from 0 to 1: the share of decisions that do."""
        same = self.choices(one).argmax(-1) == self.choices(other).argmax(-1)
        return float(same.mean()) if len(same) else 1.0

    @abstractmethod
    def scores(self, exam: Exam, kept: Sequence[Sequence[Floats]]) -> list[Score]:
        """The metrics of this task, the one that counts first.

        Args:
            exam: with gold.
            kept: of each example, of each window, what ``keep`` kept.
        """


def agreement(task: Task, one: Sequence[Sequence[Floats]], other: Sequence[Sequence[Floats]]) -> float:
    """How far two models say the same, from 0 to 1: the mean over all windows of ``Task.alike``."""
    pairs = [(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)]
    return float(np.mean([task.alike(a, b) for a, b in pairs])) if pairs else 1.0


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithms of probabilities along the last axis, float64, without overflow."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities along the last axis, float64, without overflow."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    powers = np.exp(shifted)
    found: NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return found


def text_of(row: Mapping[str, Any], where: str, key: str = "text") -> str:
    """The string under a key of one line of a data file.

    Raises:
        DataError: there is none.
    """
    found = row.get(key)
    if not isinstance(found, str):
        raise DataError(f"{where}: expected a JSON object with a string under '{key}'")
    return found


def check_options(task: Task, given: Mapping[str, Any], name: str) -> None:
    """Refuse an option that the task does not have.

    Raises:
        DataError: naming it, and those that there are.
    """
    for option in given:
        if option not in task.OPTIONS:
            known = ", ".join(task.OPTIONS) or "none at all"
            raise DataError(f"{name} has no option '{option}': expected one of {known}")
