"""Scores of anything that turns texts into logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgelm.bundle import Bundle
from edgelm.data import Dataset, examples
from edgelm.errors import DataError
from edgelm.manifest import Score
from edgelm.predictor import load
from edgelm.profile.subject import choose
from edgelm.progress import Progress, silent
from edgelm.runtimes import Logits
from edgelm.schema import to_dict
from edgelm.tasks import Task
from edgelm.text import Tokenizer, Window

__all__ = ["evaluate", "evaluate_bundle"]


def evaluate(
    run: Callable[[Window], Logits],
    task: Task,
    tokenizer: Tokenizer,
    data: Dataset,
    *,
    name: str = "eval",
    progress: Progress = silent,
) -> list[Score]:
    """The metrics of a task on data of which it is known what is right.

    Args:
        run: the model: its output for what it reads at once, without a batch axis.
        task: what the outputs mean.
        tokenizer: of the model.
        data: the examples.
        name: of the progress bar.
        progress: shown while it runs.

    Returns:
        The one that counts first.

    Raises:
        DataError: nothing is known of the data.
    """
    exam = task.exam(tokenizer, data.texts, data.gold)
    if exam.gold is None:
        raise DataError("the data has no labels: expected 'label', or what the task has in its place, on every line")
    kept = []
    with progress(name, len(exam.windows)) as advance:
        for windows in exam.windows:
            kept.append([task.keep(window, run(window)) for window in windows])
            advance(1)
    return task.scores(exam, kept)


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
        data: JSON lines as the task has them; see ``edgelm.data.examples``.
        engine: only this one.
        precision: only this one.
        threads: for the engine.
        progress: shown while it runs.

    Returns:
        For each variant: ``engine``, ``precision``, ``metric``, ``value``, ``n``.

    Raises:
        EdgelmError: the bundle or the data cannot be used, or no variant of it runs here.
    """
    manifest, results, dataset = Bundle(path).manifest, list[dict[str, Any]](), None
    for variant in choose(manifest, [engine] if engine else None, [precision] if precision else None):
        chosen = {"engine": variant.engine, "precision": variant.precision}
        with load(path, device="cpu", threads=threads, engine=variant.engine, precision=variant.precision) as model:
            dataset = dataset or examples(data, model.task)
            name = f"eval {' '.join(chosen.values())}"
            scores = evaluate(model.run, model.task, model.tokenizer, dataset, name=name, progress=progress)
        results += [chosen | to_dict(score) for score in scores]
    return results
