"""A recipe's budget at work: resolved before compression, held against its result, measured once it is exported."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgelm import data, devices
from edgelm.bundle import Bundle
from edgelm.check import Reference
from edgelm.checkpoint import Checkpoint
from edgelm.compress import target
from edgelm.compress.distill import Dev
from edgelm.compress.points import TRIALS, fastest
from edgelm.compress.prune import PruneReport, prune
from edgelm.compress.prune import planned as shape_after
from edgelm.compress.tabulate import cold_ms
from edgelm.compress.target import Target
from edgelm.compress.vocab import trim
from edgelm.devices.machine import detect, machine
from edgelm.errors import GateFailed, RecipeError
from edgelm.exporters import exporter
from edgelm.model import Encoder, EncoderConfig, linear_macs, parameters
from edgelm.progress import Progress
from edgelm.recipe import Export, Located, Prune
from edgelm.runtimes import load
from edgelm.schema import to_dict

__all__ = ["described", "held", "hold", "measured", "planned", "pruned", "resolved", "sized", "trials"]

Rows = Sequence[NDArray[np.int32]]


def resolved(located: Located, original: Checkpoint, limit: int, rows: Rows, progress: Progress) -> Target | None:
    """The recipe's budget, with its latency table; None if it has none.

    Args:
        located: the recipe.
        original: what is to be compressed.
        limit: longest input.
        rows: token ids of the training texts, by which the vocabulary will be trimmed if the recipe asks for it.
        progress: shown while a table is measured.

    Raises:
        RecipeError: the budget does not make sense.
    """
    plan = located.recipe
    budget = plan.budget
    if budget is None:
        return None
    wanted = plan.export or Export(device=detect())
    profile = devices.load(wanted.device)
    runs_on = budget.engine or exporter((wanted.formats or profile.formats)[0]).ENGINE
    vocab = original.model.config.vocab_size
    if plan.vocab is not None:
        alone = msgspec.structs.replace(plan.vocab, share=1.0)  # who shares a row does not change how many there are
        vocab = trim(original.model, original.tokenizer, alone, rows)[2].rows[1]
    if budget.table is None and budget.p50_ms is not None and profile.name != detect():
        logging.getLogger("edgelm").warning(
            "budget.p50_ms is planned by latencies of this machine (%s), not of %s; give budget.table, measured there",
            detect(),
            profile.name,
        )
    return target.of(
        budget,
        runs_on,
        sorted({length for length in wanted.lengths if length <= limit}),
        original.model.config,
        vocab,
        table=located.path(budget.table) if budget.table else None,
        progress=progress,
    )


def trials(aim: Target | None) -> bool:
    """Whether the widths are found by pruning and scoring candidates: a loss is all that is given."""
    return aim is not None and aim.budget.p50_ms is None and aim.budget.bytes is None


def pruned(
    model: Encoder,
    config: Prune,
    rows: Rows,
    gold: NDArray[np.int64] | None,
    aim: Target | None,
    original: Reference | None,
    progress: Progress,
) -> tuple[Encoder, PruneReport]:
    """Prune to the budget if there is one, else as the recipe says.

    With nothing but a loss allowed, candidates are scored on the dev texts of ``original``; see ``held``.
    """
    passes = 1 + (TRIALS if trials(aim) else 1)
    with progress("prune", passes * min(len(rows), config.samples)) as advance:
        if aim is not None and original is not None and trials(aim):
            assert aim.budget.points is not None
            assert original.texts.gold is not None
            dev = Dev(original.rows, original.texts.gold)
            return fastest(model, config, rows, gold, dev, aim, aim.budget.points, progress=advance)
        choose = aim.choose(config.multiple_of or 1) if aim is not None else None
        return prune(model, config, rows, gold, choose=choose, progress=advance)


def planned(
    model: Encoder,
    config: Prune,
    rows: Rows,
    gold: NDArray[np.int64] | None,
    aim: Target | None,
    original: Reference | None,
    progress: Progress,
) -> EncoderConfig:
    """The shape that ``pruned`` would leave. Arguments as there."""
    if trials(aim):
        return pruned(model, config, rows, gold, aim, original, progress)[0].config
    with progress("score", min(len(rows), config.samples)) as advance:
        choose = aim.choose(config.multiple_of or 1) if aim is not None else None
        return shape_after(model, config, rows, gold, choose=choose, progress=advance)


def sized(shape: EncoderConfig) -> dict[str, Any]:
    """A shape and its size, for a plan."""
    widths = {"heads": shape.heads, "ffn": shape.ffn, "strides": shape.strides, "vocab": shape.vocab_size}
    return {**widths, "macs": linear_macs(shape), "parameters": parameters(Encoder(shape))}


def held(located: Located, original: Checkpoint, limit: int) -> Reference | None:
    """The original's answers to the dev texts, if the recipe limits the loss of accuracy on them; else None.

    Raises:
        RecipeError: there are no dev texts with labels.
    """
    budget, name = located.recipe.budget, located.recipe.data.dev
    if budget is None or budget.points is None:
        return None
    texts = data.read(located.path(name), original.model.config.labels) if name else None
    if texts is None or texts.gold is None:
        raise RecipeError("budget.points needs data.dev: expected JSON lines with 'text' and 'label'")
    return Reference(original.model, original.tokenizer, limit, texts)


def described(aim: Target, shape: EncoderConfig, original: EncoderConfig) -> dict[str, Any]:
    """For the report: the budget, what is predicted for a shape, and for the original by the same table."""
    subject = aim.table.subject
    return {
        **to_dict(aim.budget),
        "engine": subject.engine,
        "machine": aim.table.machine.cpu,
        "predicted": aim.predicted(shape),
        "predicted_original": {"p50_ms": aim.ms(original)},
    }


def hold(points: float, original: Reference, compressed: Reference) -> dict[str, float]:
    """Hold the accuracy of the compressed model against the budget.

    Args:
        points: percentage points of accuracy that may be lost.
        original: its answers on the dev texts, which have labels.
        compressed: its answers on the same texts.

    Returns:
        ``points_lost``, for the report.

    Raises:
        GateFailed: more was lost.
    """
    assert original.score is not None
    assert compressed.score is not None
    lost = 100 * (original.score.value - compressed.score.value)
    if lost > points + 1e-9:
        raise GateFailed(
            f"budget.points: the compressed model's {compressed.score.metric} {compressed.score.value:.4f} on "
            f"{compressed.score.n} texts is {lost:.2f} points below the original's {original.score.value:.4f}; the "
            f"budget allows {points:g}: distil longer, or allow more latency, bytes or points"
        )
    return {"points_lost": lost}


def measured(aim: Target, bundle: Bundle) -> dict[str, Any] | None:
    """The artifact that the budget is for, measured as the table was: ``p50_ms`` and ``bytes``.

    Args:
        aim: the budget.
        bundle: what was exported.

    Returns:
        None if the variant is not among them. ``p50_ms`` is None if the table is of another machine.
    """
    subject = aim.table.subject
    wanted = (subject.engine, subject.precision)
    found = next((one for one in bundle.manifest.variants if (one.engine, one.precision) == wanted), None)
    if found is None:
        return None
    ms = None
    if aim.table.machine == machine():
        session = load(bundle, found, threads=subject.threads)
        try:
            ms = cold_ms({"it": session}, aim.budget.tokens, vocab=bundle.manifest.model.vocab)["it"]
        finally:
            session.close()
    return {"p50_ms": ms, "bytes": found.bytes}
