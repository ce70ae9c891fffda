"""Scores of anything that turns texts into logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgelm.data import Dataset
from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.progress import Progress, silent
from edgelm.tasks import accuracy

__all__ = ["evaluate"]


def evaluate(
    logits: Callable[[Sequence[str]], NDArray[np.float32]],
    data: Dataset,
    *,
    name: str = "eval",
    progress: Progress = silent,
) -> Score:
    """The task metric on labelled data.

    Args:
        logits: texts to float32, shape (texts, classes).
        data: texts with their classes.
        name: of the progress bar.
        progress: shown while it runs.

    Raises:
        DataError: the data has no labels.
    """
    if data.gold is None:
        raise DataError("the data has no labels: expected 'label' on every line")
    with progress(name, len(data.texts)) as advance:
        parts = []
        for start in range(0, len(data.texts), 50):
            texts = data.texts[start : start + 50]
            parts.append(logits(texts))
            advance(len(texts))
    return accuracy(np.concatenate(parts), data.gold)
