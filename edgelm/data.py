"""Task data in: JSON lines with ``text`` and ``label``, plain text, and batches of one exact length."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgelm.errors import DataError

__all__ = ["Dataset", "by_length", "read", "read_texts", "sample", "sha256"]

Rows = Sequence[NDArray[np.int32]]


@dataclass(frozen=True)
class Dataset:
    """Texts and, where known, their classes.

    Attributes:
        texts: in file order.
        gold: int64, shape (rows,), class indices; None when the file has no labels.
    """

    texts: tuple[str, ...]
    gold: NDArray[np.int64] | None


def read(path: Path, labels: Sequence[str]) -> Dataset:
    """Read JSON lines with ``text`` and, on every line or on none, ``label``.

    Args:
        path: UTF-8, one object a line, lines end with a newline alone: texts may hold other Unicode separators.
        labels: the model's class names, by index.

    Raises:
        DataError: naming the line, and what was expected there.
    """
    texts: list[str] = []
    gold: list[int] = []
    index = {label: i for i, label in enumerate(labels)}
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        row = _object(line, where)
        texts.append(row["text"])
        if "label" in row:
            gold.append(_class(row["label"], index, where))
        if gold and len(gold) != len(texts):
            raise DataError(f"{where}: expected a label on every line or on none")
    if not texts:
        raise DataError(f"{path}: expected JSON lines with 'text', found an empty file")
    return Dataset(tuple(texts), np.array(gold, np.int64) if gold else None)


def read_texts(path: Path) -> tuple[str, ...]:
    """Read texts without labels: JSON lines with ``text`` when the name ends in ``.jsonl``, else one text a line.

    Raises:
        DataError: the file cannot be read.
    """
    jsonl = path.suffix == ".jsonl"
    return tuple(
        str(_object(line, f"{path}, line {number}")["text"]) if jsonl else line for number, line in _lines(path)
    )


def sha256(path: Path) -> str:
    """Of a file's content, in hex: which data it was, wherever it lay."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sample() -> Dataset:
    """The texts that ship with edgelm, for where none are given: 200 of all kinds and lengths, without labels."""
    content = resources.files("edgelm").joinpath("sample.txt").read_text(encoding="utf-8")
    return Dataset(tuple(line for line in content.split("\n") if line), None)


def by_length(rows: Rows, size: int, order: NDArray[np.int64] | None = None) -> Iterator[NDArray[np.int64]]:
    """Batches of rows of one exact length, so that nothing is padded.

    Args:
        rows: token ids of each text.
        size: rows a batch, at most.
        order: row indices, in the order in which they are dealt out; file order by default.

    Yields:
        Indices into ``rows``, int64; a length's last batch may be smaller.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(rows)) if order is None else order.tolist():
        group = groups[len(rows[index])]
        group.append(index)
        if len(group) == size:
            yield np.array(group, np.int64)
            group.clear()
    yield from (np.array(group, np.int64) for group in groups.values() if group)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of each line that is not blank."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror}; expected a file of JSON lines") from exc
    try:
        decoded = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: expected UTF-8 text, found other bytes at offset {exc.start}") from exc
    return ((number, line) for number, line in enumerate(decoded.split("\n"), start=1) if line.strip())


def _object(line: str, where: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except ValueError as exc:
        raise DataError(f"{where}: expected a JSON object with 'text', found something that is not JSON") from exc
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise DataError(f"{where}: expected a JSON object with a string under 'text'")
    return row


def _class(label: object, index: dict[str, int], where: str) -> int:
    if isinstance(label, str) and label in index:
        return index[label]
    near = difflib.get_close_matches(str(label), index, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"the first are {', '.join(list(index)[:5])}"
    raise DataError(f"{where}: label '{label}' is not one of the model's {len(index)} labels; {hint}")
