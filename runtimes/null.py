"""An engine that answers zeros at once: what is measured with it is the harness."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelm.errors import BundleError, DataError
from edgelm.runtimes import Ids, Logits, Session
from edgelm.runtimes.place import CPU, Place

__all__ = ["DEVICES", "FORMAT", "load", "missing"]

FORMAT = ""
DEVICES = ("cpu",)


def missing(device: str = "cpu") -> str | None:
    """None: it runs everywhere."""
    del device
    return None


def load(artifact: bytes, *, threads: int, place: Place = CPU) -> Session:
    """Load nothing.

    Args:
        artifact: the number of classes in decimal digits, such as ``b"150"``.
        threads: told by ``explain`` and otherwise not used.
        place: not used.

    Raises:
        BundleError: the artifact is not a number.
    """
    del place
    if not artifact.isdigit():
        raise BundleError(f"the null engine expects a number of classes such as b'150', found {artifact[:20]!r}")
    return _Session(int(artifact), threads)


class _Session:
    def __init__(self, classes: int, threads: int) -> None:
        self._classes, self._threads, self._open = classes, threads, True

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        del attention_mask
        if not self._open:
            raise DataError("the model is closed: load it again")
        return np.zeros((len(input_ids), self._classes), np.float32)

    def explain(self) -> dict[str, Any]:
        facts = {"engine": "null", "version": "", "device": "cpu", "provider": "none"}
        return {**facts, "threads": self._threads, "lengths": [], "nodes": {}}

    def close(self) -> None:
        self._open = False
