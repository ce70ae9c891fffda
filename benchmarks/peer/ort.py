"""ONNX Runtime alone, for what the families export to ONNX: no torch, no transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from peer import Bind, Call, PeerError, Request

__all__ = ["bind"]


def bind(folder: Path, threads: int) -> Bind:
    """The one model of a folder, as ONNX Runtime's documentation shows it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        raise PeerError(f"expected one ONNX model, found {[path.name for path in found]}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(found[0], options, providers=["CPUExecutionProvider"])
    types = {one.name: "int64" if "64" in one.type else "int32" for one in session.get_inputs()}

    def bound(request: Request) -> Call:
        given: dict[str, Any] = {"input_ids": request.ids, "attention_mask": request.mask}
        feed = {name: given[name].astype(kind) for name, kind in types.items()}
        return lambda: session.run(None, feed)[0]

    return bound
