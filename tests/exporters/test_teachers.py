"""Real weights and real text: int8 must not cost accuracy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgelm import checkpoint, data
from edgelm.checkpoint import Checkpoint
from edgelm.exporters import EXPORTERS, exporter, parity
from edgelm.manifest import Precision
from edgelm.recipe import DEFAULT_GATES
from edgelm.runtimes import engine
from edgelm.tasks import accuracy
from edgelm.text import Tokenizer

LOSES: dict[Precision, float] = {"int8-static": 0.01}
"""Of accuracy; less than 0.007 for the others."""

Batch = Callable[[Checkpoint, int], tuple[torch.Tensor, torch.Tensor]]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("form", sorted(EXPORTERS))
def test_a_teacher_passes_the_default_gates_and_keeps_its_accuracy_in_int8(
    form: str, teachers: Path, real_data: Path, dev_texts: Batch
) -> None:
    ours = checkpoint.read(teachers / "sst2-teacher")
    ids, mask = dev_texts(ours, 872)
    rows = [row[:n].numpy().astype(np.int32) for row, n in zip(ids, mask.sum(1).tolist(), strict=True)]
    gold = data.read(real_data / "sst2" / "dev.jsonl", ours.model.config.labels).gold
    assert gold is not None
    expected = parity.reference(ours.model, rows)
    train = data.read(real_data / "sst2" / "train.jsonl", ours.model.config.labels).texts[::100]
    calibration = Tokenizer(ours.tokenizer, max_tokens=128, pad_token_id=0).encode(list(train))
    made = exporter(form).export(ours.model, exporter(form).PRECISIONS, (16, 32, 64, 128), calibration=calibration)
    for precision, artifact in made.items():
        session = engine(exporter(form).ENGINE).load(artifact, threads=1)
        close = parity.check(ours.model, session, rows[:100], rows[:9], expected=list(expected[:100]))
        parity.enforce(close, DEFAULT_GATES[precision], f"{form} {precision}")
        found = np.concatenate([session.run(row[None], np.ones_like(row)[None]) for row in rows])
        assert accuracy(found, gold).value > accuracy(expected, gold).value - LOSES.get(precision, 0.007)
        session.close()
