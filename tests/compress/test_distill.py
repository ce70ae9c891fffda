from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional

from edgelm.compress.distill import distill, steps
from edgelm.compress.prune import prune
from edgelm.model import Encoder
from edgelm.recipe import Distill, Prune

ROWS = [tiny.ids(1, n, seed=seed)[0].numpy().astype(np.int32) for seed, n in enumerate([5, 9, 12, 7] * 40)]
TEACHER = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48))


def student() -> Encoder:
    return prune(TEACHER, Prune(layers=(0, 2), ffn=16), ROWS, None)[0]


def divergence(model: Encoder) -> float:
    ids = tiny.ids(64, 10, seed=1234)
    with torch.no_grad():
        theirs, ours = (m(ids, torch.ones_like(ids)).log_softmax(-1) for m in (TEACHER, model))
    return float(functional.kl_div(ours, theirs, reduction="batchmean", log_target=True))


def test_the_student_comes_nearer_to_the_teacher_on_texts_it_has_not_seen() -> None:
    before = student()
    after, report = distill(student(), TEACHER, Distill(epochs=12, lr=3e-3, dropout=0.0), ROWS, ROWS, (0, 2))
    assert divergence(after) < 0.7 * divergence(before)
    assert report.loss_end < report.loss_start


def test_the_seed_decides() -> None:
    made = [
        distill(student(), TEACHER, Distill(epochs=1, seed=seed), ROWS, ROWS, (0, 2))[0].state_dict()
        for seed in (1, 1, 2)
    ]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_it_leaves_evaluation_mode_no_gradients_and_no_dropout() -> None:
    model, _ = distill(student(), TEACHER, Distill(epochs=1), ROWS, ROWS, (0, 2))
    ids = tiny.ids(2, 6)
    assert torch.equal(*(model(ids, torch.ones_like(ids)) for _ in range(2)))
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(("epochs", "expected"), [(1.0, 8), (0.5, 4), (0.01, 1), (2.5, 20)])
def test_progress_counts_every_step_and_no_more(epochs: float, expected: int) -> None:
    config, counted = Distill(epochs=epochs, batch=20), list[int]()
    assert steps(ROWS, config) == expected
    distill(student(), TEACHER, config, ROWS, ROWS, (0, 2), progress=counted.append)
    assert sum(counted) == expected
