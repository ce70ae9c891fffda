"""What every page of figures has in common: it is written from committed results, or checked against them."""

from __future__ import annotations

import sys
from pathlib import Path

from edgelm.bundle import staged

__all__ = ["absent", "publish"]


def publish(document: Path, text: str, *, by: str) -> None:
    """Write a document; with ``--check``, end here, with an error if it is not this text.

    Args:
        document: the file.
        text: what is to stand in it.
        by: the command that writes it.
    """
    if "--check" in sys.argv:
        same = document.exists() and document.read_text(encoding="utf-8") == text
        sys.exit(0 if same else f"{document.name}: figures differ from the committed results: run {by}")
    with staged(document) as staging:
        staging.write_text(text, encoding="utf-8")


def absent(document: Path, *, by: str) -> None:
    """End where there are no results, with an error if there is a document nevertheless."""
    sys.exit(f"{document.name}: has no figures: run {by}" if document.exists() else 0)
