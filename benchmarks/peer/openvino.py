"""OpenVINO: its conversion of transformers' module, and NNCF's int8 with the preset for transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peer import Bind, Call, PeerError, Request

__all__ = ["PACKAGES", "load", "prepare"]

PACKAGES = ("openvino", "nncf", "torch", "transformers")
_FILE = "model.xml"
_HINTS = {"fp32": "f32", "bf16": "bf16"}


def prepare(kind: str, checkpoint: Path, folder: Path, rows: Sequence[Request]) -> None:
    """Convert with dynamic shapes and save as OpenVINO does by default, weights in fp16; quantize that for int8."""
    import openvino

    _check(kind)
    if kind == "int8":
        import nncf

        given = nncf.Dataset([_inputs(row) for row in rows])
        converted = openvino.Core().read_model(folder.parent / "fp32" / _FILE)
        converted = nncf.quantize(converted, given, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))
    else:
        import torch
        from transformers import AutoModelForSequenceClassification

        module = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
        example = {name: torch.ones(1, 16, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
        converted = openvino.convert_model(module, example_input=example)
    openvino.save_model(converted, folder / _FILE)


def load(kind: str, folder: Path, threads: int) -> Bind:
    """Compiled for the latency of one request."""
    import openvino

    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if kind in _HINTS:
        settings["INFERENCE_PRECISION_HINT"] = _HINTS[kind]
    request = openvino.compile_model(folder / _FILE, "CPU", settings).create_infer_request()

    def bind(given: Request) -> Call:
        inputs = _inputs(given)

        def call() -> NDArray[np.float32]:
            logits: NDArray[np.float32] = request.infer(inputs, share_inputs=True)[0]
            return logits

        return call

    return bind


def _inputs(request: Request) -> dict[str, NDArray[np.int64]]:
    return {"input_ids": request.ids.astype(np.int64), "attention_mask": request.mask.astype(np.int64)}


def _check(kind: str) -> None:
    """Refuse bf16 where OpenVINO would compute in fp32 without a word."""
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if kind == "bf16" and "BF16" not in able:
        raise PeerError(f"this processor has no bfloat16, OpenVINO says: expected BF16 among {', '.join(able)}")
