"""litert-torch's conversion of transformers' module, and ai-edge-quantizer's dynamic int8 of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peer import Bind, Call, Request

__all__ = ["PACKAGES", "load", "prepare"]

PACKAGES = ("litert-torch", "ai-edge-quantizer", "ai-edge-litert", "torch", "transformers")
_FILE = "model.tflite"
_LENGTHS = (16, 32, 64, 128, 256)


def prepare(kind: str, checkpoint: Path, folder: Path, rows: Sequence[Request]) -> None:
    """A signature for each length, since shapes are static; for int8, quantize what was converted."""
    del rows
    if kind == "int8":
        from ai_edge_quantizer import quantizer, recipe

        work = quantizer.Quantizer(str(folder.parent / "fp32" / _FILE), recipe.dynamic_wi8_afp32())
        work.quantize().export_model(str(folder / _FILE))
        return
    import litert_torch
    import torch
    from transformers import AutoModelForSequenceClassification

    module = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    making: Any = litert_torch
    for length in _LENGTHS:
        inputs = {name: torch.ones(1, length, dtype=torch.int32) for name in ("input_ids", "attention_mask")}
        making = making.signature(f"tokens_{length}", _logits(module), sample_kwargs=inputs)
    making.convert().export(str(folder / _FILE))


def load(kind: str, folder: Path, threads: int) -> Bind:
    """Each text in the smallest signature that it fits into, one after the other."""
    del kind
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(folder / _FILE), num_threads=threads)
    runners: dict[int, Any] = {}

    def bind(request: Request) -> Call:
        rows = []
        for ids, tokens in zip(request.ids, request.mask.sum(-1), strict=True):
            length = next(length for length in _LENGTHS if tokens <= length)
            if length not in runners:
                runners[length] = interpreter.get_signature_runner(f"tokens_{length}")
            given, mask = np.zeros((2, 1, length), np.int32)
            given[0, :tokens], mask[0, :tokens] = ids[:tokens], 1
            rows.append((runners[length], given, mask))

        def call() -> NDArray[np.float32]:
            found = [run(input_ids=given, attention_mask=mask)["logits"][0] for run, given, mask in rows]
            return np.stack(found)

        return call

    return bind


def _logits(module: Any) -> Any:
    """The module with one output, named."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.module(input_ids=input_ids, attention_mask=attention_mask).logits}

    return Logits().eval()
