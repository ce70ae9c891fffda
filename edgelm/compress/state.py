"""Where a long job was when it was killed: one file beside the output, replaced as a whole, removed when all is done.

It names the job it belongs to, by a hash of all that the job's result depends on, so that no other job goes on from it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from edgelm.errors import DataError

__all__ = ["State", "job", "remove"]

INTERVAL = 120.0
"""Seconds between two writes. What takes less time than this is done again."""


class State:
    """The state of one job on disk."""

    def __init__(self, path: Path, job: str) -> None:
        """Nothing is read or written yet.

        Args:
            path: the file; its folder must be there.
            job: what the state belongs to; see ``job``.
        """
        self.path, self._job = path, job
        self._last = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """What was written last; None if nothing was, or by another job, which is logged.

        Raises:
            DataError: the file is damaged.
        """
        try:
            kept = torch.load(self.path, weights_only=True)
            name, content = kept["job"], kept["content"]
        except FileNotFoundError:
            return None
        except (UnpicklingError, RuntimeError, EOFError, LookupError, TypeError) as exc:
            raise DataError(
                f"{self.path}: expected the state of a job of edgelm, found something else: remove it"
            ) from exc
        if name != self._job:
            log = logging.getLogger("edgelm")
            log.warning(
                "%s is of another job (recipe, data or checkpoint differ): starting from the beginning", self.path
            )
            return None
        return dict(content)

    def due(self) -> bool:
        """Whether the last write, or the start, is long enough ago."""
        return time.monotonic() - self._last >= INTERVAL

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace what is there, at once and as a whole.

        Args:
            content: tensors, numbers, strings, and lists and dicts of them.

        Raises:
            OSError: the file cannot be written; what was there before is still there.
        """
        new = _unfinished(self.path)
        with new.open("wb") as file:
            try:
                torch.save({"job": self._job, "content": dict(content)}, file)
            except RuntimeError as exc:  # torch's own words for a full disk do not say so
                raise OSError(errno.EIO, "cannot be written; is the disk full?", str(new)) from exc
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
        self._last = time.monotonic()


def remove(path: Path) -> None:
    """Remove a state, and what a kill in the middle of a write left of another. It is no error if there is none."""
    path.unlink(missing_ok=True)
    _unfinished(path).unlink(missing_ok=True)


def job(*parts: Any) -> str:
    """A name for what the parts describe: the same for equal parts, another for any others.

    Args:
        parts: bytes, strings, numbers, None, arrays, tensors, structs; sequences, mappings and dataclasses of them.

    Returns:
        SHA-256, in hex.
    """
    digest = hashlib.sha256()
    _feed(digest, parts)
    return digest.hexdigest()


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _feed(digest: hashlib._Hash, part: Any) -> None:
    """Add one part: its kind and size first, so that no two sequences of parts run together to the same bytes."""
    if isinstance(part, Tensor):
        part = part.detach().numpy()
    if isinstance(part, np.ndarray):
        digest.update(f"array {part.dtype} {part.shape};".encode())
        digest.update(np.ascontiguousarray(part).data)
    elif isinstance(part, msgspec.Struct):
        _feed(digest, msgspec.to_builtins(part))
    elif is_dataclass(part):
        _feed(digest, vars(part))
    elif isinstance(part, Mapping):
        _feed(digest, [*part.items()])
    elif isinstance(part, list | tuple):
        digest.update(f"sequence {len(part)};".encode())
        for one in part:
            _feed(digest, one)
    elif isinstance(part, bytes | str | int | float | None):
        content = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(f"{type(part).__name__} {len(content)};".encode())
        digest.update(content)
    else:
        raise TypeError(f"job: expected a part that can be hashed as a whole, found {type(part).__name__}")
