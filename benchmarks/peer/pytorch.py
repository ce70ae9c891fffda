"""PyTorch, eager in fp32 and bf16, and compiled; on transformers' module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from peer import Bind, Call, Request

__all__ = ["PACKAGES", "load", "prepare"]

PACKAGES = ("torch", "transformers")
_TYPES = {"bf16": torch.bfloat16}


def prepare(kind: str, checkpoint: Path, folder: Path, rows: Sequence[Request]) -> None:
    """Save the module in its own type."""
    del rows
    _module(kind, checkpoint).save_pretrained(folder)


def load(kind: str, folder: Path, threads: int) -> Bind:
    """The module, with all of PyTorch's threads set to so many."""
    torch.set_num_threads(threads)
    module = _module(kind, folder)
    run = torch.compile(module) if kind == "compile" else module

    def bind(request: Request) -> Call:
        ids, mask = torch.from_numpy(request.ids).long(), torch.from_numpy(request.mask).long()

        @torch.inference_mode()
        def call() -> NDArray[np.float32]:
            logits: NDArray[np.float32] = run(input_ids=ids, attention_mask=mask).logits.float().numpy()
            return logits

        return call

    return bind


def _module(kind: str, folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=_TYPES.get(kind, torch.float32)).eval()
