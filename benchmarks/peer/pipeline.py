"""``transformers.pipeline`` as its documentation shows it: texts in, labels out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import pipeline

from peer import Bind, Call, Request

__all__ = ["PACKAGES", "load", "prepare"]

PACKAGES = ("torch", "transformers")


def prepare(kind: str, checkpoint: Path, folder: Path, rows: Sequence[Request]) -> None:
    """The checkpoint as it is."""
    del kind, rows
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)


def load(kind: str, folder: Path, threads: int) -> Bind:
    """The pipeline; a list of texts goes in as a list."""
    del kind
    torch.set_num_threads(threads)
    classify = pipeline("text-classification", model=str(folder))
    number = {label: int(index) for index, label in (classify.model.config.id2label or {}).items()}

    def bind(request: Request) -> Call:
        texts = list(request.texts)
        return lambda: np.array([number[answer["label"]] for answer in classify(texts)])

    return bind
