"""The peers of edgelm, one module for each family, all with the same two verbs; ``benchmarks/peers.py`` asks them.

A family runs in the environment that a file of pins beside it describes, so nothing here may be imported from edgelm
but by ``ours``. What it offers:

- ``PACKAGES``: names of distributions whose versions are told.
- ``prepare(kind, checkpoint, folder, rows)`` writes into a folder what a device needs to run the checkpoint in one kind
  of the family, and nothing else. What was prepared in other kinds lies beside it. The rows are for calibration.
- ``load(kind, folder, threads)`` gives a function that binds a request: whatever can be done before the clock runs is
  done then. What it returns is called without arguments, and timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bind", "Call", "Family", "PeerError", "Request"]


class PeerError(Exception):
    """A peer cannot do what is asked of it, and says why."""


@dataclass(frozen=True)
class Request:
    """One or several texts at once.

    Attributes:
        texts: as they are.
        ids: of their tokens, int32, shape (texts, tokens), padded on the right.
        mask: 1 for tokens and 0 for padding, of the same type and shape.
    """

    texts: tuple[str, ...]
    ids: NDArray[np.int32]
    mask: NDArray[np.int32]

    @classmethod
    def of(cls, content: dict[str, Any]) -> Request:
        """From JSON."""
        return cls(tuple(content["texts"]), np.array(content["ids"], np.int32), np.array(content["mask"], np.int32))

    def to_json(self) -> dict[str, Any]:
        """For ``of``."""
        return {"texts": list(self.texts), "ids": self.ids.tolist(), "mask": self.mask.tolist()}


Call = Callable[[], NDArray[Any]]
"""Answers: logits, shape (texts, classes), or the number of the class of each text, shape (texts,)."""

Bind = Callable[[Request], Call]


class Family(Protocol):
    """What a module of this package offers; see above."""

    PACKAGES: tuple[str, ...]

    def prepare(self, kind: str, checkpoint: Path, folder: Path, rows: Sequence[Request]) -> None:
        """Write what a device needs."""

    def load(self, kind: str, folder: Path, threads: int) -> Bind:
        """Load it."""
