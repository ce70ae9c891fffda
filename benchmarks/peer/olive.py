"""Olive: its command for a CPU with what that chooses, and the passes that its example for BERT runs on one."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peer import Bind, PeerError, Request, ort

__all__ = ["PACKAGES", "load", "prepare"]

PACKAGES = ("olive-ai", "onnxruntime", "onnxruntime-genai", "transformers", "torch")
_TASK = "text-classification"
_PASSES = ("OnnxConversion", "OrtTransformersOptimization", "OnnxDynamicQuantization")


def prepare(kind: str, checkpoint: Path, folder: Path, rows: Sequence[Request]) -> None:
    """``olive optimize`` for a CPU, and nothing else said; or the three passes."""
    del rows
    import olive
    from olive.cli.api import optimize

    logging.getLogger("olive").addHandler(failed := _Failed())
    os.chdir(folder)  # it keeps a cache where it stands
    if kind == "optimize":
        chosen = {"provider": "CPUExecutionProvider", "device": "cpu"}
        optimize(str(checkpoint), task=_TASK, output_path=str(folder / "made"), **chosen)
    else:
        olive.run(_workflow(checkpoint, folder / "made"))
    shutil.rmtree(folder / ".olive-cache", ignore_errors=True)
    if not list(folder.rglob("*.onnx")):  # a pass that raised is logged, and the workflow ends as if all were well
        cause = f"{type(failed.cause).__name__}: {failed.cause}" if failed.cause else "it does not say why"
        raise PeerError(f"no output model produced: {cause}".replace(str(checkpoint), checkpoint.name))


def load(kind: str, folder: Path, threads: int) -> Bind:
    """By ONNX Runtime alone."""
    del kind
    return ort.bind(folder, threads)


class _Failed(logging.Handler):
    """Keeps the last exception that was logged."""

    cause: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.cause = record.exc_info[1]


def _workflow(checkpoint: Path, out: Path) -> dict[str, Any]:
    accelerators = [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]
    return {
        "input_model": {"type": "HfModel", "model_path": str(checkpoint), "task": _TASK},
        "systems": {"here": {"type": "LocalSystem", "accelerators": accelerators}},
        "target": "here",
        "passes": {name.lower(): {"type": name} for name in _PASSES},
        "output_dir": str(out),
        "no_artifacts": True,
    }
