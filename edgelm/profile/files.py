"""Profiles as files: what was measured is kept as it is, and not written over by mistake."""

from __future__ import annotations

import zipfile
from pathlib import Path

from edgelm.bundle import Bundle, staged
from edgelm.errors import DataError
from edgelm.runs import Profile, read
from edgelm.schema import encode

__all__ = ["check_new", "load", "save"]


def check_new(path: Path, *, force: bool) -> None:
    """Refuse to write over a file, before the work and not after it.

    Raises:
        DataError: it is there, and ``force`` does not allow it.
    """
    if path.exists() and not force:
        raise DataError(f"{path}: there is a file of this name; measurements are only written over with --force")


def save(path: Path, profile: Profile, *, force: bool = False) -> None:
    """Write a profile, at once and as a whole.

    Raises:
        DataError: as in ``check_new``.
    """
    check_new(path, force=force)
    with staged(path) as staging:
        staging.write_bytes(encode(profile))


def load(path: Path) -> Profile:
    """Read a profile: a saved one, or that of a bundle, which its build measured.

    Raises:
        DataError: there is no file, or it is no profile.
        BundleError: it is a bundle that cannot be read.
    """
    if zipfile.is_zipfile(path):
        profile = Bundle(path).profile
        if profile is None:
            raise DataError(f"{path}: the bundle has no profile, since it was only exported; measure it with --save")
        return profile
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise DataError(f"{path}: no profile can be read ({exc.strerror})") from exc
    return read(raw, source=str(path), error=DataError)
