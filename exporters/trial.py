"""The last step of every export: the artifact is loaded by its engine and run, or it does not exist."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgelm.errors import EdgelmError, ExportFailed
from edgelm.heads import Head
from edgelm.runtimes import Logits, Session, engine

__all__ = ["try_out"]


def try_out(artifact: bytes, name: str, shapes: Iterable[tuple[int, int]], head: Head, *, by: str) -> None:
    """Load an artifact and run it once for each shape.

    Args:
        artifact: its content.
        name: of the artifact, for the error: format and precision.
        shapes: (batch, tokens) to run; in every row but the first, the second half is padding.
        head: of the model it was exported from.
        by: the engine.

    Raises:
        ExportFailed: it does not load, does not run, or gives an output of another shape or dtype.
    """
    try:
        session = engine(by).load(artifact, threads=1)
    except EdgelmError as exc:
        raise ExportFailed(f"{name}: {by} does not load what was exported: {exc}") from exc
    try:
        for shape in shapes:
            logits = _run(session, shape, f"{name}: {by}")
            expected = head.shape(*shape)
            if logits.shape != expected or logits.dtype != np.float32:
                raise ExportFailed(
                    f"{name}: {by} gives {logits.dtype} {head.OUTPUT} of shape {logits.shape} "
                    f"for {shape[0]} x {shape[1]} tokens; expected float32, {expected}"
                )
    finally:
        session.close()


def _run(session: Session, shape: tuple[int, int], name: str) -> Logits:
    ids, mask = np.zeros(shape, np.int32), np.ones(shape, np.int32)
    mask[1:, (shape[1] + 1) // 2 :] = 0
    try:
        return session.run(ids, mask)
    except Exception as exc:  # engines raise types of their own, without a common base
        raise ExportFailed(f"{name} loads but does not run what was exported: {exc}") from exc
