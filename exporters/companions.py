"""What stands beside a model of TensorFlow: its tokenizer and its labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from edgelm.errors import DataError

__all__ = ["Companions", "companions"]

_PADDING = ("[PAD]", "<pad>")


@dataclass(frozen=True)
class Companions:
    """What stands beside a model of TensorFlow, which itself knows numbers alone.

    Attributes:
        tokenizer: content of ``tokenizer.json``.
        vocab: ids that it can give.
        pad_token_id: the id of its padding token, or 0 where it has none: padding is masked.
        labels: by class index.
    """

    tokenizer: bytes
    vocab: int
    pad_token_id: int
    labels: tuple[str, ...]


def companions(source: Path | None, tokenizer: Path | None = None, labels: Path | None = None) -> Companions:
    """Read the tokenizer and the labels: the files given, or ``tokenizer.json`` and ``config.json`` beside the model.

    Args:
        source: the model; beside a folder is in it, or else in the folder that holds it. None in memory.
        tokenizer: a ``tokenizer.json``.
        labels: a text file with one label a line, by class index.

    Raises:
        DataError: one of them is not there or cannot be read.
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
    padding = next((ids[token] for token in _PADDING if token in ids), 0)
    return Companions(content, 1 + max(ids.values(), default=0), padding, _labels(source, labels))


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


def _labels(source: Path | None, given: Path | None) -> tuple[str, ...]:
    if given is not None:
        try:
            lines = _content(given).decode("utf-8").splitlines()
        except UnicodeDecodeError as exc:
            raise DataError(f"{given}: expected UTF-8 text with one label a line") from exc
        found = tuple(line.strip() for line in lines)
        if len(found) < 2 or "" in found or len(set(found)) < len(found):
            raise DataError(f"{given}: expected one label a line, two or more, none blank or twice; found {len(found)}")
        return found
    config = _beside(source, "config.json")
    if config is None:
        raise DataError(f"{source}: no config.json with id2label stands beside it: give the labels with --labels FILE")
    try:
        named: Any = json.loads(_content(config))["id2label"]
        return tuple(str(named[key]) for key in sorted(named, key=int))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise DataError(f"{config}: expected id2label, the labels by index; or give them with --labels FILE") from exc
