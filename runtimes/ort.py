"""ONNX Runtime on the CPU: one artifact, any batch and length."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import version
from typing import Any

from edgelm.errors import BundleError, DataError
from edgelm.runtimes import Ids, Logits, Session

__all__ = ["FORMAT", "load", "missing"]

FORMAT = "onnx"


def missing() -> str | None:
    """Why ONNX Runtime cannot run here, with the cure; None when it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "ONNX Runtime is not installed: pip install onnxruntime"
    return None


def load(artifact: bytes, *, threads: int) -> Session:
    """Load an ONNX model.

    Args:
        artifact: the file's content.
        threads: within an operator; operators run one after the other.

    Raises:
        BundleError: ONNX Runtime does not take it.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default in the wheels from 1.29 on
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # the pybind module has exception types of its own, without a common base
        raise BundleError(f"ONNX Runtime {version('onnxruntime')} cannot load the artifact: {_line(exc)}") from exc
    return _Session(session, threads)


class _Session:
    def __init__(self, session: Any, threads: int) -> None:
        self._session, self._threads = session, threads

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        if self._session is None:
            raise DataError("the model is closed: load it again")
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits: Logits = self._session.run(None, feed)[0]
        return logits

    def explain(self) -> dict[str, Any]:
        return {
            "engine": "onnxruntime",
            "version": version("onnxruntime"),
            "provider": "CPUExecutionProvider",
            "threads": self._threads,
            "lengths": [],
        }

    def close(self) -> None:
        self._session = None


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200]
