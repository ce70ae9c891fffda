"""Engines: one module each, all with the same verbs. A new engine is one file here and one line in ``ENGINES``."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DeviceUnavailable
from edgelm.runtimes.given import whole
from edgelm.runtimes.place import CPU, Place

if TYPE_CHECKING:
    from edgelm.bundle import Bundle
    from edgelm.manifest import Variant

if __name__ != "edgelm.runtimes":
    raise ImportError("use edgelm.runtimes: imported from the checkout, this would be a second copy")

__all__ = ["ENGINES", "Engine", "Ids", "Logits", "Session", "engine", "load", "names"]

Ids = NDArray[np.int32]
Logits = NDArray[np.float32]


class Session(Protocol):
    """A loaded artifact. Several threads may call it at the same time.

    It may also have ``tokens_at_once``: how many tokens, rows times length, keep it busy, where rows run together cost
    less than one by one, as on a GPU.
    """

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
        """Engine, version, device, provider, threads, signatures, nodes: what really runs, as plain JSON values."""

    def close(self) -> None:
        """Free the engine's memory. The session cannot run afterwards."""


class Engine(Protocol):
    """What a module of this package offers.

    It may also have ``load_from(bundle, variant, *, threads, place)``, if it knows better than to take the artifact as
    a whole; see ``load`` of this package.
    """

    FORMAT: str
    """The artifact format it runs, or ``""`` when it runs none."""

    DEVICES: tuple[str, ...]
    """Names of the devices it can run on, where they are: ``cpu`` for most."""

    def missing(self, device: str = "cpu") -> str | None:
        """Why it cannot run on a device of this machine, with the cure; None when it can.

        Must be cheap for ``cpu``: no heavy import.
        """

    def load(self, artifact: bytes, *, threads: int, place: Place = CPU) -> Session:
        """Load an artifact.

        Args:
            artifact: its content.
            threads: on the CPU.
            place: where to run; its device is one of ``DEVICES``.

        Raises:
            BundleError: the artifact is not one of this engine's.
            DeviceUnavailable: it would not really, or not wholly, run there.
        """


def load(bundle: Bundle, variant: Variant, *, threads: int, place: Place = CPU) -> Session:
    """Load a variant of a bundle in its engine.

    Args:
        bundle: that holds it.
        variant: whose engine can run here.
        threads: on the CPU.
        place: where to run.

    Raises:
        BundleDamaged: the artifact is not what was written.
        BundleError: it is not one of the engine's.
        DeviceUnavailable: it would not really, or not wholly, run there.
    """
    chosen = engine(variant.engine)
    direct = getattr(chosen, "load_from", None)
    if direct is None:
        return chosen.load(whole(bundle, variant), threads=threads, place=place)
    session: Session = direct(bundle, variant, threads=threads, place=place)
    return session


_GROUP = "edgelm.runtimes"

ENGINES = {
    "litert": "edgelm.runtimes.litert",
    "null": "edgelm.runtimes.null",
    "onnxruntime": "edgelm.runtimes.ort",
}


def names() -> list[str]:
    """Of all engines, built in and installed by others, sorted."""
    return sorted({*ENGINES, *(point.name for point in entry_points(group=_GROUP))})


def engine(name: str) -> Engine:
    """The engine of this name: built in, or installed under the entry point ``edgelm.runtimes``.

    Raises:
        DeviceUnavailable: there is no engine of this name.
    """
    path = ENGINES.get(name)
    if path is not None:
        return cast(Engine, importlib.import_module(path))
    for point in entry_points(group=_GROUP, name=name):
        return cast(Engine, point.load())
    raise DeviceUnavailable(f"no engine named '{name}': expected one of {', '.join(names())}")
