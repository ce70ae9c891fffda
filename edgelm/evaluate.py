"""Scores of anything that turns texts into logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelm.bundle import Bundle
from edgelm.data import Dataset, read
from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.predictor import load
from edgelm.profile.subject import choose
from edgelm.progress import Progress, silent
from edgelm.schema import to_dict
from edgelm.tasks import accuracy

__all__ = ["evaluate", "evaluate_bundle"]


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


def evaluate_bundle(
    path: Path,
    data: Path,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """The task metric of every variant of a bundle that can run on this machine.

    Args:
        path: the bundle.
        data: JSON lines with ``text`` and ``label``.
        engine: only this one.
        precision: only this one.
        threads: for the engine.
        progress: shown while it runs.

    Returns:
        For each variant: ``engine``, ``precision``, ``metric``, ``value``, ``n``.

    Raises:
        EdgelmError: the bundle or the data cannot be used, or no variant of it runs here.
    """
    manifest = Bundle(path).manifest
    dataset = read(data, manifest.labels)
    results = []
    for variant in choose(manifest, [engine] if engine else None, [precision] if precision else None):
        chosen = {"engine": variant.engine, "precision": variant.precision}
        with load(path, device="cpu", threads=threads, **chosen) as model:
            score = evaluate(model.logits, dataset, name=f"eval {' '.join(chosen.values())}", progress=progress)
        results.append(chosen | to_dict(score))
    return results
