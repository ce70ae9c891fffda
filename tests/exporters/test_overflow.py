"""A model with neurons whose output float16 does not hold, beside the module in float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tiny
import torch

from edgelm.exporters import Report, onnx, parity
from edgelm.exporters import onnx as exporter
from edgelm.exporters.overflow import overflowing
from edgelm.model import Encoder
from edgelm.runtimes import Ids, engine

LIMIT = 16


@pytest.fixture(scope="module")
def rows() -> list[Ids]:
    return [tiny.ids(1, tokens, seed=tokens)[0].numpy().astype(np.int32) for tokens in range(3, LIMIT + 1)]


@pytest.fixture(scope="module")
def model() -> Encoder:
    """Layer 1 has a feed-forward whose outputs are some 1e6 large, which the next LayerNorm takes down again."""
    made = tiny.encoder()
    with torch.no_grad():
        for parameter in made.layers[1].ffn.parameters():
            parameter.mul_(300.0)
    return made


def difference(artifact: bytes, model: Encoder, rows: Sequence[Ids]) -> float:
    session = engine("onnxruntime").load(artifact, threads=1)
    found = [session.run(row[None], np.ones_like(row)[None])[0] for row in rows]
    expected = parity.outputs(model, rows)
    return float(np.abs(np.stack(found) - np.stack(expected)).max())


def exported(model: Encoder, rows: Sequence[Ids] | None) -> tuple[bytes, Report]:
    told = list[Report]()
    made = exporter.export(model, ("fp16",), (LIMIT,), calibration=rows, tell=told.append)
    return made["fp16"], told[0]


@pytest.mark.parametrize("known", [True, False], ids=["with texts", "without"])
def test_what_overflows_stays_in_float32_and_is_told(known: bool, model: Encoder, rows: list[Ids]) -> None:
    artifact, report = exported(model, rows if known else None)
    assert difference(artifact, model, rows) < 0.02
    (note,) = report.notes
    assert note.startswith("left in float32, where float16 would overflow: ")


def test_without_it_the_answers_would_be_none(model: Encoder, rows: list[Ids], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "overflowing", lambda model, rows: ())
    assert not difference(exported(model, rows)[0], model, rows) < 0.02


def test_what_does_not_overflow_is_told_nothing_of(rows: list[Ids]) -> None:
    assert exported(tiny.encoder(), rows)[1].notes == ()


def test_a_weight_that_float16_does_not_hold_is_found(rows: list[Ids]) -> None:
    model = tiny.encoder()
    names = overflowing(exporter._converted(model, LIMIT), rows)
    assert names == ()
    with torch.no_grad():
        model.head.classifier.bias[0] = 1e5  # type: ignore[operator, union-attr]
    assert len(overflowing(exporter._converted(model, LIMIT), rows)) == 1
