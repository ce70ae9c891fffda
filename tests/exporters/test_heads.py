"""Every precision of ONNX for every task, with the graph that is hardest: BERT's, whose token types are computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from edgelm import checkpoint
from edgelm.exporters import onnx, parity
from edgelm.manifest import Precision, TaskName
from edgelm.profile.layers import assigned
from edgelm.profile.ops import profile_ops
from edgelm.recipe import Features
from edgelm.runtimes import engine
from edgelm.runtimes.given import held

CLOSE: dict[Precision, float] = {
    "fp32": 1e-5,
    "fp16": 0.02,
    "int8-dynamic": 0.4,
    "int8-static": 0.4,
    "int4-weights": 2.5,
}


@pytest.mark.parametrize("task", sorted(tiny.HEADS))
def test_is_close_to_the_module(task: TaskName, tmp_path: Path) -> None:
    folder = tiny.saved("bert", task, tmp_path / "checkpoint")
    features = Features(pooling="mean", normalize=True) if task == "feature-extraction" else None
    model = checkpoint.read(folder, features).model
    rows = [tiny.ids(1, 4 + index % 5, seed=index)[0].numpy().astype(np.int32) for index in range(40)]
    artifacts = onnx.export(model, onnx.PRECISIONS, (16,), calibration=rows)
    for precision, artifact in artifacts.items():
        session = engine("onnxruntime").load(artifact, threads=1)
        assert parity.check(model, session, rows[:10], rows[:2]).max_abs_diff < CLOSE[precision], precision
        session.close()
    ids = rows[0][None]
    timed = profile_ops(held(artifacts["fp32"]), (ids, np.ones_like(ids)), threads=1, count=3)
    assert len(assigned(timed, len(model.config.heads))) == len(timed) > 0
