"""Task data in: JSON lines, SQuAD's form, plain text; and batches of one exact length."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelm import text
from edgelm.errors import DataError
from edgelm.tasks import Task, of, text_of

__all__ = ["Dataset", "by_length", "examples", "read", "read_texts", "sample", "sha256"]

Rows = Sequence[NDArray[np.int32]]


@dataclass(frozen=True)
class Dataset:
    """Texts and, where known, what is right.

    Attributes:
        texts: in file order; of question answering, mappings with ``question`` and ``context``.
        gold: int64, shape (rows,), class indices, or of another task than text classification a tuple of what its
            ``parse`` gives; None when the file says nothing.
    """

    texts: tuple[Any, ...]
    gold: Any


def read(path: Path, labels: Sequence[str]) -> Dataset:
    """Read JSON lines with ``text`` and, on every line or on none, ``label``.

    Args:
        path: UTF-8, one object a line, lines end with a newline alone: texts may hold other Unicode separators.
        labels: the model's class names, by index.

    Raises:
        DataError: naming the line, and what was expected there.
    """
    return examples(path, of("text-classification", labels=labels))


def examples(path: Path, task: Task) -> Dataset:
    """Read the examples of a task.

    Args:
        path: UTF-8, one JSON object a line; a name that does not end in ``json`` or ``jsonl`` is that of a file with
            one text a line; ``.json`` is a file of SQuAD's own form.
        task: what the lines are for.

    Raises:
        DataError: naming the line, and what was expected there.
    """
    rows = _squad(path) if path.suffix == ".json" else _rows(path)
    found = list[tuple[Any, Any]]()
    for where, row in rows:
        found.append(task.parse(row, where))
        if (found[-1][1] is None) != (found[0][1] is None):
            raise DataError(f"{where}: expected a label on every line or on none")
    if not found:
        raise DataError(f"{path}: expected JSON lines, found an empty file")
    gold = [right for _, right in found]
    inputs = tuple(given for given, _ in found)
    if gold[0] is None:
        return Dataset(inputs, None)
    return Dataset(inputs, np.array(gold, np.int64) if isinstance(gold[0], int) else tuple(gold))


def read_texts(path: Path) -> tuple[str, ...]:
    """Read texts without labels: JSON lines with ``text`` when the name ends in ``.jsonl``, else one text a line.

    Raises:
        DataError: the file cannot be read.
    """
    jsonl = path.suffix == ".jsonl"
    return tuple(
        text_of(_mapping(line, f"{path}, line {number}"), f"{path}, line {number}") if jsonl else line
        for number, line in _lines(path)
    )


def sha256(path: Path) -> str:
    """Of a file's content, in hex: which data it was, wherever it lay."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sample() -> Dataset:
    """The texts that ship with edgelm, without labels."""
    return Dataset(text.sample(), None)


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


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of each line."""
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        yield where, _mapping(line, where) if path.suffix == ".jsonl" else {"text": line}


def _squad(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of each question of a file as SQuAD's are: ``data``, ``paragraphs``, ``qas``."""
    try:
        for article in json.loads(path.read_bytes())["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = [answer["text"] for answer in question["answers"]]
                    row = {"question": question["question"], "context": paragraph["context"], "answers": answers}
                    yield f"{path}, question {question.get('id')}", row
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror}; expected a file as SQuAD's are") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise DataError(f"{path}: expected a file as SQuAD's are, or lines in a .jsonl: {exc!r}") from exc


def _mapping(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as exc:
        raise DataError(f"{where}: expected a JSON object, found something that is not JSON") from exc
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row
