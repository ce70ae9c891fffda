"""What stands beside a model of TensorFlow, which itself knows numbers alone: its tokenizer, its task, its labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from edgelm.architecture import task_of
from edgelm.errors import DataError
from edgelm.manifest import TaskName

__all__ = ["Companions", "companions"]


@dataclass(frozen=True)
class Companions:
    """What stands beside a model.

    Attributes:
        tokenizer: content of ``tokenizer.json``.
        vocab: ids that it can give: from 0 to one less than this.
        pad_token_id: the id of its padding token, or 0 where it has none: padding is masked.
        mask_token_id: of its mask token, if it has one.
        task: of the model.
        labels: by class index, where the task has classes.
        multi_label: each label is a question of its own.
    """

    tokenizer: bytes
    vocab: int
    pad_token_id: int
    mask_token_id: int | None
    task: TaskName
    labels: tuple[str, ...]
    multi_label: bool = False


def companions(source: Path | None, tokenizer: Path | None = None, labels: Path | None = None) -> Companions:
    """Read the files given, or ``tokenizer.json`` and ``config.json`` beside the model, as Hugging Face writes them.

    Args:
        source: the model; beside a folder is in it, or else in the folder that holds it. None in memory.
        tokenizer: a ``tokenizer.json``.
        labels: a text file with one label a line, by class index, of a model that classifies texts; without it,
            ``config.json`` says what the model is for.

    Raises:
        DataError: one of them is not there or cannot be read.
        CheckpointError: ``config.json`` is of a task that is not known.
    """
    found = tokenizer or _beside(source, "tokenizer.json")
    if found is None:
        raise DataError(f"{source}: no tokenizer.json stands beside it: give one with --tokenizer FILE")
    content = _content(found)
    try:
        made = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as exc:  # the wheel raises bare Exception
        raise DataError(f"{found}: expected a tokenizer.json: {exc}") from exc
    ids = made.get_vocab(with_added_tokens=True)
    task, names, several = _named(source) if labels is None else ("text-classification", _lines(labels), False)
    return Companions(
        tokenizer=content,
        vocab=1 + max(ids.values(), default=0),
        pad_token_id=ids.get("[PAD]", ids.get("<pad>", 0)),
        mask_token_id=ids.get("[MASK]", ids.get("<mask>")) if task == "fill-mask" else None,
        task=task,
        labels=names,
        multi_label=several,
    )


def _beside(source: Path | None, name: str) -> Path | None:
    if source is None:
        return None
    folders = [source, source.absolute().parent] if source.is_dir() else [source.absolute().parent]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise DataError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = _content(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as exc:
        raise DataError(f"{path}: expected UTF-8 text with one label a line") from exc
    found = tuple(line.strip() for line in lines)
    if len(found) < 2 or "" in found or len(set(found)) < len(found):
        raise DataError(f"{path}: expected one label a line, two or more, none blank or twice; found {len(found)}")
    return found


def _named(source: Path | None) -> tuple[TaskName, tuple[str, ...], bool]:
    """The task, its labels, and whether each is a question of its own, by ``config.json``."""
    path = _beside(source, "config.json")
    if path is None:
        raise DataError(f"{source}: no config.json stands beside it: give the labels with --labels FILE")
    try:
        raw: Any = json.loads(_content(path))
        task = task_of(raw, path)
        if task not in ("text-classification", "token-classification"):
            return task, (), False
        named = raw["id2label"]
        labels = tuple(str(named[key]) for key in sorted(named, key=int))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(
            f"{path}: expected architectures and id2label, as transformers saves them; or give --labels FILE"
        ) from exc
    return task, labels, raw.get("problem_type") == "multi_label_classification"
