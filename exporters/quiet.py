"""Keeps the converters' own chatter off the terminal: what matters of it is raised, or reported as a note."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

__all__ = ["mute", "quiet"]


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Raise these loggers to ERROR, and drop the deprecation warnings that converters trigger in others.

    Args:
        loggers: names; ``""`` is the root logger.
    """
    before = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch.export copies its own tree specifications, and warns itself of doing so
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            # tf2onnx asks it for the shapes of tensors
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)
            # Keras hands TensorFlow's variables to numpy 2
            warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def mute() -> Iterator[None]:
    """Send standard error nowhere: Python's, and that of C++ code, which writes to the descriptor itself.

    The descriptor belongs to the whole process, so this is for short calls that cannot be told to be silent.
    """
    try:
        kept = os.dup(2)
    except OSError:  # the process has no standard error
        with redirect_stderr(io.StringIO()):
            yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
