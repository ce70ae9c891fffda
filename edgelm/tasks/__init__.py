"""What the numbers mean: inputs to token ids, outputs to answers, and the metric, for each task of an encoder.

A task is one file here and one line in ``of``. Keys, types and order of answers are those of transformers' pipelines.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgelm.errors import RecipeError
from edgelm.manifest import Score, TaskName
from edgelm.tasks.classification import Answer, MultiLabel, TextClassification, accuracy
from edgelm.tasks.entities import TokenClassification
from edgelm.tasks.masks import FillMask
from edgelm.tasks.spans import QuestionAnswering
from edgelm.tasks.task import Exam, Task, agreement, check_options, log_softmax, softmax, text_of
from edgelm.tasks.vectors import FeatureExtraction

__all__ = [
    "Answer",
    "Exam",
    "FeatureExtraction",
    "Task",
    "accuracy",
    "agreement",
    "check_options",
    "log_softmax",
    "loss",
    "of",
    "softmax",
    "text_of",
]


def of(
    name: TaskName, *, labels: Sequence[str] = (), multi_label: bool = False, mask_token_id: int | None = None
) -> Task:
    """The task of a model.

    Args:
        name: as the manifest names it.
        labels: by class index, where the task has classes.
        multi_label: each label is a question of its own.
        mask_token_id: of ``fill-mask``.

    Raises:
        RecipeError: ``fill-mask`` without a mask token.
    """
    match name:
        case "text-classification":
            return MultiLabel(tuple(labels)) if multi_label else TextClassification(tuple(labels))
        case "token-classification":
            return TokenClassification(tuple(labels))
        case "question-answering":
            return QuestionAnswering()
        case "feature-extraction":
            return FeatureExtraction()
        case "fill-mask":
            if mask_token_id is None:
                raise RecipeError("fill-mask: expected a tokenizer with a mask token, found none in it")
            return FillMask(mask_token_id)


def loss(before: Score, after: Score) -> float:
    """What a metric lost, in points: hundredths of it, or percent of a perplexity, of which less is better."""
    if before.metric == "perplexity":
        return 100 * (after.value / before.value - 1)
    return 100 * (before.value - after.value)
