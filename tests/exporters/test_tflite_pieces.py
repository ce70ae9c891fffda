"""The pieces that a TFLite artifact is cut into to be timed, for every precision and every task, against the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from edgelm import checkpoint
from edgelm.exporters import tflite
from edgelm.manifest import Precision, TaskName
from edgelm.model import Encoder
from edgelm.profile.ops_litert import chained
from edgelm.profile.pieces import Piece, cut
from edgelm.recipe import Features
from edgelm.runtimes import engine


def compared(artifact: bytes, model: Encoder, tokens: int) -> tuple[Piece, ...]:
    """The pieces, after it was seen that together they answer as the whole."""
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, tokens), np.int32)
    found = cut(artifact, tokens, len(model.config.heads))
    *_, (_, known) = chained(found.pieces, {found.input_ids: ids, found.attention_mask: np.ones_like(ids)}, 1)
    session = engine("litert").load(artifact, threads=1)
    answer = session.run(ids, np.ones_like(ids))
    session.close()
    (output,) = found.pieces[-1].outputs
    np.testing.assert_allclose(known[output].reshape(answer.shape), answer, rtol=0, atol=2e-6)
    return found.pieces


@pytest.mark.parametrize("precision", tflite.PRECISIONS)
def test_every_precision(precision: Precision, artifacts: dict[tuple[str, Precision], bytes], model: Encoder) -> None:
    pieces = compared(artifacts["tflite", precision], model, 16)
    names = [name for i in range(3) for name in (f"attention {i}", f"ffn {i}")]
    assert list(dict.fromkeys(piece.layer for piece in pieces)) == ["embedding", *names, "head"]
    assert {piece.int8 for piece in pieces if piece.kind == "FULLY_CONNECTED"} >= {precision.startswith("int")}


@pytest.mark.parametrize("task", sorted(tiny.HEADS))
def test_every_task(task: TaskName, tmp_path: Path) -> None:
    folder = tiny.saved("bert", task, tmp_path / "checkpoint")
    features = Features(pooling="mean", normalize=True) if task == "feature-extraction" else None
    model = checkpoint.read(folder, features).model
    artifact = tflite.export(model, ["fp32"], [16])["fp32"]
    layers = [piece.layer for piece in compared(artifact, model, 16)]
    assert layers[0] == "embedding"
    assert layers[-1] == "head"
