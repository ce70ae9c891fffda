"""What is remembered about this machine: small JSON files in the user's cache folder, which may go at any time."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from edgelm.bundle import staged
from edgelm.devices.machine import machine
from edgelm.errors import DataError
from edgelm.schema import Strict, decode, encode

__all__ = ["cache_folder", "clear", "files", "key", "recall", "remember"]

_log = logging.getLogger("edgelm")
_S = TypeVar("_S", bound=Strict)
_KINDS = ("fastest", "latency", "passed", "peak")
"""What the names of our files begin with: nothing else in the folder is ever touched."""


def cache_folder() -> Path:
    """``$EDGELM_CACHE``, else ``edgelm`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    own, shared = os.environ.get("EDGELM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "edgelm"


def key(*parts: str) -> str:
    """A name for what holds on this machine, with these versions of everything, and for these parts alone."""
    return hashlib.sha256("\n".join(parts).encode() + msgspec.json.encode(machine())).hexdigest()[:32]


def recall(name: str, kind: type[_S]) -> _S | None:
    """What was remembered under a name, or None if nothing was, or it cannot be read: then it is measured again."""
    try:
        return decode((cache_folder() / f"{name}.json").read_bytes(), kind, source=name, error=DataError)
    except (OSError, DataError):
        return None


def remember(name: str, value: Strict) -> None:
    """Write under a temporary name and rename, since two processes may do this at the same time.

    A folder that cannot be written is no error: it is said once, and everything is measured at every load.

    Args:
        name: begins with one of the kinds above.
        value: to be recalled.
    """
    path = cache_folder() / f"{name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged(path) as staging:
            staging.write_bytes(encode(value))
    except OSError as exc:
        _tell_once(
            f"{path.parent}: cannot be written ({exc.strerror}); variants are tested and timed at every load; "
            "name another folder in EDGELM_CACHE"
        )


def files() -> list[Path]:
    """Our files in the cache folder, with what a killed process left of them, sorted."""
    folder = cache_folder()
    if not folder.is_dir():
        return []
    names = [(path, path.name.removeprefix(".")) for path in folder.iterdir() if path.is_file()]
    return sorted(path for path, name in names if ".json" in name and name.split("-")[0] in _KINDS)


def clear() -> int:
    """Delete our files from the cache folder.

    Returns:
        How many there were.

    Raises:
        OSError: one cannot be deleted.
    """
    found = files()
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _tell_once(message: str, told: set[str] = set()) -> None:  # noqa: B006 - that it lasts is the point
    if message not in told:
        told.add(message)
        _log.warning("%s", message)
