"""onnxsim, kept at arm's length: it runs in a process of its own, and its result counts only when it is better.

It has been known to crash, to hang and to change a model's answers; none of that may break a build.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from edgelm.exporters.onnx_graph import tidy_
from edgelm.exporters.onnx_pieces import size
from edgelm.runtimes import Ids, Logits, engine
from edgelm.runtimes.given import large

__all__ = ["PROGRAM", "simplified"]

# MatMul + Add must stay as they are: as Gemm they need reshapes around them, and quantize to a slower pattern
PROGRAM = """
import onnx, onnxsim, sys
model, same = onnxsim.simplify(
    onnx.load(sys.argv[1]),
    skipped_optimizers=["fuse_matmul_add_bias_into_gemm", "fuse_matmul_add_bias_into_gemm_batched"],
)
onnx.save(model, sys.argv[2])
sys.exit(0 if same else "its own check of the result failed")
"""
"""What runs; its arguments are the file to read and the file to write."""

TOLERANCE = 1e-5
"""Largest difference of a logit, relative to the largest logit, that is put down to the order of float32 sums."""


def simplified(
    model: ModelProto, limit: int, vocab: int, *, timeout_s: float = 300.0
) -> tuple[ModelProto, tuple[str, ...]]:
    """A model after onnxsim, if that gives the same logits from no more nodes and no more bytes; else the model itself.

    Args:
        model: with the inputs and the output of every artifact of edgelm.
        limit: longest input, in tokens.
        vocab: rows of its embeddings.
        timeout_s: after which onnxsim is ended.

    Returns:
        The model to use, and a note that says why it is not onnxsim's, if it is not.
    """
    if large(size(model)):
        return model, ("onnxsim was left out: the model is larger than what it reads, which is 2 GB",)
    with tempfile.TemporaryDirectory(prefix="edgelm-onnxsim-") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(model, before)
        try:
            _run(before, after, timeout_s)
            found = onnx.load(after)
            tidy_(found)
            reason = _objection(model, found, limit, vocab)
        except Exception as exc:  # whatever goes wrong with it, the build goes on without it
            reason = " ".join(str(exc).split())[:300]
    return (found, ()) if reason is None else (model, (f"onnxsim's result was not kept: {reason}",))


def _run(before: Path, after: Path, timeout_s: float) -> None:
    command = [sys.executable, "-c", PROGRAM, str(before), str(after)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as exc:
        raise RuntimeError(f"it had not finished after {timeout_s:.0f} s") from exc
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"it ended with status {done.returncode}: {said[-1]}")


def _objection(model: ModelProto, found: ModelProto, limit: int, vocab: int) -> str | None:
    """Why the result is not to be used, if it is not."""
    onnx.checker.check_model(found, full_check=True)
    if len(found.graph.node) > len(model.graph.node):
        return f"it has {len(found.graph.node)} nodes, the original {len(model.graph.node)}"
    if found.ByteSize() > model.ByteSize():
        return f"it has {found.ByteSize()} bytes, the original {model.ByteSize()}"
    apart = _difference(model.SerializeToString(), found.SerializeToString(), limit, vocab)
    return None if apart <= TOLERANCE else f"its logits differ by {apart:.2g} of the largest"


def _difference(one: bytes, other: bytes, limit: int, vocab: int) -> float:
    """Largest difference of a logit, relative to the largest; infinite when a logit is not a number."""
    random = np.random.default_rng(0)
    worst = 0.0
    for batch, tokens in ((1, 2), (3, min(limit, 20)), (1, limit)):
        ids = random.integers(0, vocab, (batch, tokens), np.int32)
        mask = np.ones_like(ids)
        mask[1:, (tokens + 1) // 2 :] = 0
        expected, found = (_logits(artifact, ids, mask) for artifact in (one, other))
        if expected.shape != found.shape or not np.isfinite(found).all():
            return float("inf")
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


def _logits(artifact: bytes, ids: Ids, mask: Ids) -> Logits:
    session = engine("onnxruntime").load(artifact, threads=1)
    try:
        return session.run(ids, mask)
    finally:
        session.close()
