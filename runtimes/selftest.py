"""Does a variant compute here what it computed where it was built? The golden inputs of the bundle say so.

An engine's kernels differ from one processor to the next, and some of them are wrong: eight-bit products that saturate
at 16 bits, kernels that were never tried with this shape. What a variant may differ by is derived from how far it was
from the module when it was built, on the same inputs and hundreds of others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgelm.errors import BundleError, SelfTestFailed
from edgelm.manifest import Variant
from edgelm.runtimes import Ids, Logits, Session
from edgelm.runtimes.cache import key, recall, remember
from edgelm.runtimes.place import Place
from edgelm.schema import Strict, decode

__all__ = ["COLUMNS", "ENTRY", "Row", "Verdict", "compare", "enforce", "rows", "tested"]

ENTRY = "golden.json"
"""The name of the golden inputs in a bundle."""

COLUMNS = 512
"""Of an output with a logit for every piece of a vocabulary, only so many columns are golden."""

SECONDS = 0.1
"""After so long, a first load has seen enough; ``edgelm verify`` runs every row."""

_log = logging.getLogger("edgelm")
_ROUNDING = 1e-3  # of the largest logit: sums in another order, in float32, through a dozen layers
_HALF_ROUNDING = 1e-2  # the same in float16, where it was built perhaps computed in float32: 20 roundings of 2^-11
_FACTOR = 2.0


@dataclass(frozen=True)
class Row:
    """A golden input and what the module answers.

    Attributes:
        input_ids: int32, shape (tokens,).
        logits: float32, as a session gives them for one row.
    """

    input_ids: Ids
    logits: Logits


class Verdict(Strict, frozen=True, kw_only=True):
    """What a self-test found; it is remembered for this machine when it passed.

    Attributes:
        schema: the version of this format.
        rows: golden inputs that were run.
        difference: the largest absolute difference of a logit from the module's.
        bound: what that may be.
        mean: the root of the mean squared difference.
        mean_bound: what that may be.
    """

    schema: Literal["edgelm.passed/1"] = "edgelm.passed/1"
    rows: int
    difference: float
    bound: float
    mean: float
    mean_bound: float

    @property
    def passed(self) -> bool:
        """Whether both are within their bounds; a figure that is not a number is not."""
        return self.difference <= self.bound and self.mean <= self.mean_bound


class _Golden(Strict, frozen=True, kw_only=True):
    schema: str
    rows: tuple[dict[str, Any], ...]


def rows(content: bytes) -> list[Row]:
    """Read the golden inputs of a bundle.

    Args:
        content: of the entry ``golden.json``.

    Raises:
        BundleError: it cannot be read.
    """
    golden = decode(content, _Golden, source=ENTRY, error=BundleError)
    try:
        return [
            Row(np.asarray(row["input_ids"], np.int32), np.asarray(row["logits"], np.float32)) for row in golden.rows
        ]
    except (KeyError, TypeError, ValueError) as exc:
        raise BundleError(f"{ENTRY}: expected rows of input_ids and logits, found something else ({exc})") from exc


def compare(
    variant: Variant,
    session: Session,
    golden: Sequence[Row],
    *,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> Verdict:
    """Run golden inputs and compare.

    Args:
        variant: that the session is of.
        session: open.
        golden: at least one row.
        seconds: after so long, no further row is begun.
        clock: seconds from any origin.

    Raises:
        SelfTestFailed: a session gives logits of another shape.
    """
    begin, differences, largest = clock(), list[Logits](), 1.0
    for row in golden:
        found = session.run(row.input_ids[None], np.ones_like(row.input_ids)[None])[0]
        if row.logits.shape[-1] == COLUMNS:
            found = found[..., :COLUMNS]
        if found.shape != row.logits.shape:
            raise SelfTestFailed(
                f"{_name(variant)}: expected logits of shape {row.logits.shape}, found {found.shape}; build it again"
            )
        differences.append(np.abs(found - row.logits).ravel())
        largest = max(largest, float(np.abs(row.logits).max(initial=0.0)))
        if clock() - begin >= seconds:
            break
    flat = np.concatenate(differences).astype(np.float64)
    share = _HALF_ROUNDING if variant.precision == "fp16" else _ROUNDING
    recorded, rounding = max(variant.parity.max_abs_diff, 0.0), share * largest
    return Verdict(
        rows=len(differences),
        difference=float(flat.max(initial=0.0)),
        bound=_FACTOR * recorded + rounding,
        mean=float(np.sqrt(np.mean(flat**2))),
        mean_bound=recorded + rounding,
    )


def enforce(verdict: Verdict, variant: Variant) -> None:
    """Fail unless the verdict is good.

    Raises:
        SelfTestFailed: naming variant and figure.
    """
    if verdict.passed:
        return
    what, found, most = ("largest", verdict.difference, verdict.bound)
    if verdict.difference <= verdict.bound:
        what, found, most = ("mean", verdict.mean, verdict.mean_bound)
    raise SelfTestFailed(
        f"{_name(variant)} computes something else on this machine than where it was built: the {what} difference of a "
        f"logit is {found:.3g} on {verdict.rows} golden inputs, at most {most:.3g} was expected; take another variant "
        "(edgelm verify tests them all)"
    )


def tested(
    variant: Variant, session: Session, read: Callable[[], bytes], *, threads: int, place: Place
) -> tuple[Verdict, bool]:
    """The verdict on a variant, remembered or new.

    Args:
        variant: that the session is of.
        session: open.
        read: gives the content of ``golden.json``; only called for a new verdict.
        threads: that it runs with.
        place: where it runs.

    Returns:
        The verdict, and whether it was remembered.

    Raises:
        SelfTestFailed: see ``enforce``. A failure is not remembered: it is tested again at the next load.
    """
    name = f"passed-{key(variant.engine, variant.digest, str(threads), str(place))}"
    known = recall(name, Verdict)
    if known is not None and known.passed:
        return known, True
    verdict = compare(variant, session, rows(read()), seconds=SECONDS)
    enforce(verdict, variant)
    remember(name, verdict)
    return verdict, False


def _name(variant: Variant) -> str:
    return f"{variant.engine} {variant.precision}"
