"""What the commands have in common: options and arguments, and how they write what they found."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from edgelm.errors import DataError, MissingExtra

__all__ = [
    "BundlePath",
    "EngineName",
    "Html",
    "Json",
    "PrecisionName",
    "Threads",
    "check_outputs",
    "emit",
    "needs",
    "numbers",
]

BundlePath = Annotated[Path, Argument(metavar="BUNDLE", help="A .edgelm file.")]
EngineName = Annotated[str | None, Option("--engine", help="Only this engine: onnxruntime or litert.")]
Html = Annotated[Path | None, Option("--html", metavar="FILE", help="Write a report for a browser.")]
Json = Annotated[str | None, Option("--json", metavar="FILE", help="Write one JSON object; - is standard output.")]
PrecisionName = Annotated[str | None, Option("--precision", help="Only this precision.")]
Threads = Annotated[int | None, Option("--threads", min=1, help="For the engine; physical cores if not given.")]


def emit(target: str | None, command: str, found: dict[str, Any]) -> None:
    """Write the JSON object of a command; ``-`` is standard output."""
    if target is None:
        return
    text = json.dumps({"schema": f"edgelm.{command}/1", "edgelm": version("edgelm"), **found}, indent=1) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    from edgelm.bundle import staged

    with staged(Path(target)) as staging:
        staging.write_text(text, encoding="utf-8")


def check_outputs(*paths: Path | str | None) -> None:
    """Refuse a file in a folder that is not there, before the work and not after it."""
    for path in paths:
        if path is not None and path != "-" and not Path(path).absolute().parent.is_dir():
            raise DataError(f"{path}: the folder it is to be written to is not there; make it first")


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers with commas between.

    Raises:
        DataError: they are not.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as exc:
        raise DataError(f"{option} {text}: expected whole numbers with commas between, as in 16,32") from exc


@contextmanager
def needs(what: str, extra: str) -> Iterator[None]:
    """Turn a missing package into the line that installs it."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").split(".")[0] == "edgelm":
            raise
        raise MissingExtra(what, extra) from exc
