"""What a recipe's budget means: for which engine, at which length, by which latency table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgelm.compress import latency
from edgelm.compress.budget import Limits, within
from edgelm.compress.latency import Subject, Table
from edgelm.compress.tabulate import tabulate
from edgelm.compress.widths import Choose
from edgelm.errors import RecipeError
from edgelm.model import EncoderConfig
from edgelm.progress import Progress, silent
from edgelm.recipe import Budget

__all__ = ["LENGTHS", "Target", "of"]

LENGTHS = (16, 32, 64, 128)
"""Tokens that a table is measured at; a length between two of them is interpolated, any other measured by itself."""


@dataclass(frozen=True)
class Target:
    """A budget, resolved.

    Attributes:
        budget: as in the recipe.
        table: costs of widths.
        tokens: that are computed for a request of ``budget.tokens``: LiteRT pads to a signature.
        positions: rows of position embeddings in the artifact.
        vocab: rows of word embeddings that the model will have.
    """

    budget: Budget
    table: Table
    tokens: int
    positions: int
    vocab: int

    def choose(self, multiple: int, ms: float | None = None) -> Choose:
        """The best widths within the budget.

        Args:
            multiple: of FFN widths.
            ms: the latency to keep, instead of the budget's.
        """
        limits = Limits(ms or self.budget.p50_ms, self.budget.bytes, self.tokens, self.positions, self.vocab)
        return within(limits, self.table, multiple)

    def ms(self, shape: EncoderConfig) -> float:
        """Predicted latency of an encoder of this shape, in milliseconds."""
        return self.table.predict_ms(shape, self.tokens)

    def predicted(self, shape: EncoderConfig) -> dict[str, Any]:
        """Of an encoder of this shape: ``p50_ms`` and ``bytes`` of its artifact."""
        sized = replace(shape, vocab_size=self.vocab)
        return {"p50_ms": self.ms(shape), "bytes": round(self.table.predict_bytes(sized, self.positions))}


def of(
    budget: Budget,
    engine: str,
    lengths: Sequence[int],
    shape: EncoderConfig,
    vocab: int,
    *,
    table: Path | None = None,
    progress: Progress = silent,
) -> Target:
    """Resolve a budget; the table is measured if it is neither given nor remembered.

    Args:
        budget: as in the recipe.
        engine: that will run the artifact.
        lengths: token lengths that are exported.
        shape: of the model before compression.
        vocab: rows of word embeddings after it.
        table: a file to take the table from.
        progress: shown while it measures.

    Raises:
        RecipeError: the budget asks for nothing, for more tokens than are exported, or its table is of another thing.
    """
    if budget.p50_ms is None and budget.bytes is None and budget.points is None:
        raise RecipeError("budget: expected at least one of 'p50_ms', 'bytes', 'points'; found none of them")
    if budget.precision == "int8-static":
        raise RecipeError(
            "budget.precision: a latency table has no texts to calibrate int8-static on: expected fp32 or int8-dynamic"
        )
    if budget.tokens > max(lengths):
        raise RecipeError(f"budget.tokens: {budget.tokens} is more than the longest that is exported ({max(lengths)})")
    tokens = min(one for one in lengths if one >= budget.tokens) if engine == "litert" else budget.tokens
    usual = tuple(one for one in LENGTHS if one <= shape.max_positions)
    at = usual if usual and usual[0] <= tokens <= usual[-1] else (tokens,)
    subject = Subject(
        engine=engine,
        precision=budget.precision,
        threads=budget.threads,
        dim=shape.dim,
        head_dim=shape.head_dim,
        heads=max(1, *shape.heads),
        ffn=max(1, *shape.ffn),
        labels=len(shape.labels),
        lengths=at,
    )
    found = _given(table, subject, tokens) if table else latency.cached(subject)
    if found is None:
        found = tabulate(subject, progress=progress)
        logging.getLogger("edgelm").info("latency table: %s", latency.keep(found))
    return Target(budget, found, tokens, latency.position_rows(engine, lengths), vocab)


def _given(path: Path, wanted: Subject, tokens: int) -> Table:
    """A table from a file, if it holds what is wanted.

    Raises:
        RecipeError: it is of another engine or shape; each difference is named.
    """
    table = latency.read(path)
    found = table.subject
    same = ("engine", "precision", "threads", "dim", "head_dim")
    apart = [
        f"{name} {getattr(found, name)} instead of {getattr(wanted, name)}"
        for name in same
        if getattr(found, name) != getattr(wanted, name)
    ]
    apart += [
        f"{name} up to {getattr(found, name)}"
        for name in ("heads", "ffn")
        if getattr(found, name) < getattr(wanted, name)
    ]
    if not found.lengths[0] <= tokens <= found.lengths[-1]:
        apart.append(f"tokens from {found.lengths[0]} to {found.lengths[-1]}")
    if apart:
        raise RecipeError(f"{path}: the latency table does not fit the model and the budget: it has {', '.join(apart)}")
    return table
