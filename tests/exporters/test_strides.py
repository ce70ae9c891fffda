"""Layers that leave rows out, in every format and precision, against the module."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from edgelm.exporters import exporter, names, xnnpack
from edgelm.manifest import Precision
from edgelm.model import Encoder
from edgelm.profile.ops_litert import chained
from edgelm.profile.pieces import cut
from edgelm.runtimes import engine

LENGTHS = (8, 16)
VARIANTS = [(form, precision) for form in names() for precision in exporter(form).PRECISIONS]
SHARE: dict[Precision, float] = {"fp32": 1e-5, "fp16": 0.01, "int8-dynamic": 0.2, "int8-static": 0.25}
"""How far logits may be from the module's, of what they scatter by. 4 bits keep too little of a model this small."""


@pytest.fixture(scope="module")
def model() -> Encoder:
    return tiny.encoder(strides=(2, 2, 1))


@pytest.fixture(scope="module")
def artifacts(model: Encoder) -> dict[tuple[str, Precision], bytes]:
    rows = [tiny.ids(1, 2 + seed % 15, seed=100 + seed)[0].numpy().astype(np.int32) for seed in range(128)]
    return {
        (form, precision): artifact
        for form in names()
        for precision, artifact in exporter(form)
        .export(model, exporter(form).PRECISIONS, LENGTHS, calibration=rows)
        .items()
    }


@pytest.mark.parametrize("tokens", [7, 8, 16])
@pytest.mark.parametrize(("form", "precision"), [v for v in VARIANTS if v[1] in SHARE])
def test_gives_the_modules_logits(
    form: str, precision: Precision, tokens: int, model: Encoder, artifacts: dict[tuple[str, Precision], bytes]
) -> None:
    ids, mask = tiny.ids(8, tokens, seed=tokens), torch.ones(8, tokens, dtype=torch.int64)
    for row in range(1, 8):
        ids[row, tokens - row // 2 :], mask[row, tokens - row // 2 :] = 0, 0
    whole = Encoder(replace(model.config, strides=())).eval()
    whole.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected, others = model(ids, mask).numpy(), whole(ids, mask).numpy()
    session = engine(exporter(form).ENGINE).load(artifacts[form, precision], threads=1)
    found = session.run(ids.numpy().astype(np.int32), mask.numpy().astype(np.int32))
    session.close()
    apart = np.sqrt(np.mean((found - expected) ** 2)) / expected.std()
    assert apart < SHARE[precision]
    assert apart < 0.5 * np.sqrt(np.mean((others - expected) ** 2)) / expected.std()  # rows that stay would be seen


def test_xnnpack_runs_it_and_its_pieces_answer_as_the_whole(
    model: Encoder, artifacts: dict[tuple[str, Precision], bytes]
) -> None:
    artifact = artifacts["tflite", "int8-dynamic"]
    assert set(xnnpack.outside(artifact)) == {"CAST", "EMBEDDING_LOOKUP", "RESHAPE"}
    ids = tiny.ids(1, 16).numpy().astype(np.int32)
    found = cut(artifact, 16, len(model.config.heads))
    *_, (_, known) = chained(found.pieces, {found.input_ids: ids, found.attention_mask: np.ones_like(ids)}, 1)
    session = engine("litert").load(artifact, threads=1)
    answer = session.run(ids, np.ones_like(ids))
    session.close()
    (output,) = found.pieces[-1].outputs
    np.testing.assert_allclose(known[output].reshape(answer.shape), answer, rtol=0, atol=2e-6)
