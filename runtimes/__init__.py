"""Engines: one module each, all with the same verbs. A new engine is one file here and one line in ``ENGINES``."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DeviceUnavailable

if __name__ != "edgelm.runtimes":
    raise ImportError("use edgelm.runtimes: imported from the checkout, this would be a second copy")

__all__ = ["ENGINES", "Engine", "Ids", "Logits", "Session", "engine"]

Ids = NDArray[np.int32]
Logits = NDArray[np.float32]


class Session(Protocol):
    """A loaded artifact."""

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Run one batch.

        Args:
            input_ids: int32, shape (batch, tokens).
            attention_mask: int32, same shape, 1 for tokens and 0 for padding on the right.

        Returns:
            The artifact's one output, float32: logits, shape (batch, classes) or (batch, tokens, classes), or vectors,
            shape (batch, dim). What belongs to padding means nothing.
        """

    def explain(self) -> dict[str, Any]:
        """Engine, version, provider, threads, signatures: what really runs, as plain JSON values."""

    def close(self) -> None:
        """Free the engine's memory. The session cannot run afterwards."""


class Engine(Protocol):
    """What a module of this package offers."""

    FORMAT: str
    """The artifact format it runs, or ``""`` when it runs none."""

    def missing(self) -> str | None:
        """Why it cannot run on this machine, with the cure; None when it can. Must be cheap: no heavy import."""

    def load(self, artifact: bytes, *, threads: int) -> Session:
        """Load an artifact to run on the CPU with this many threads.

        Raises:
            BundleError: the artifact is not one of this engine's.
        """


ENGINES = {
    "litert": "edgelm.runtimes.litert",
    "null": "edgelm.runtimes.null",
    "onnxruntime": "edgelm.runtimes.ort",
}


def engine(name: str) -> Engine:
    """The engine of this name: built in, or installed under the entry point ``edgelm.runtimes``.

    Raises:
        DeviceUnavailable: there is no engine of this name.
    """
    path = ENGINES.get(name)
    if path is not None:
        return cast(Engine, importlib.import_module(path))
    others = {point.name: point for point in entry_points(group="edgelm.runtimes")}
    if name in others:
        return cast(Engine, others[name].load())
    raise DeviceUnavailable(f"no engine named '{name}': expected one of {', '.join(sorted({*ENGINES, *others}))}")
