"""What the numbers mean: answers from logits, and one metric for each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from edgelm.manifest import Score

__all__ = ["Answer", "accuracy", "classify", "softmax"]


class Answer(TypedDict):
    """One label with its probability."""

    label: str
    score: float


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities along the last axis, float64, without overflow."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    powers = np.exp(shifted)
    found: NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return found


def classify(logits: NDArray[np.float32], labels: Sequence[str], top_k: int) -> list[list[Answer]]:
    """The likeliest labels of each row, best first; ties in the order of the labels.

    Args:
        logits: float32, shape (rows, classes).
        labels: by class index.
        top_k: how many; all when there are fewer.
    """
    found = []
    for row in softmax(logits):
        best = np.argsort(-row, kind="stable")[:top_k]
        found.append([Answer(label=labels[index], score=float(row[index])) for index in best])
    return found


def accuracy(logits: NDArray[np.float32], gold: NDArray[np.int64]) -> Score:
    """The share of rows whose largest logit is that of the gold class.

    Args:
        logits: float32, shape (rows, classes).
        gold: int64, shape (rows,).
    """
    return Score(metric="accuracy", value=float((logits.argmax(-1) == gold).mean()), n=len(gold))
