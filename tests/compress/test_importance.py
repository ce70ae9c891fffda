from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional

from edgelm.compress.importance import fisher
from edgelm.model import Encoder

ROWS = [tiny.ids(1, n, seed=n)[0].numpy().astype(np.int32) for n in (5, 9, 5, 12, 9, 7)]
GOLD = np.array([0, 1, 2, 0, 1, 2])


def loss_with(model: Encoder, row: int, name: str, layer: int, unit: int, scale: float) -> float:
    """The loss of one text when one head's or neuron's contribution is scaled."""
    clone = Encoder(model.config)
    clone.load_state_dict(model.state_dict())
    part = clone.layers[layer]
    projection, width = (part.attention.out, part.attention.head_dim) if name == "heads" else (part.ffn.down, 1)
    ids = torch.from_numpy(ROWS[row])[None].long()
    assert isinstance(projection, torch.nn.Linear)
    with torch.no_grad():
        projection.weight[:, unit * width : (unit + 1) * width] *= scale
        return float(
            functional.cross_entropy(clone.double()(ids, torch.ones_like(ids)), torch.tensor([int(GOLD[row])]))
        )


@pytest.mark.parametrize(("name", "layer", "unit"), [("heads", 0, 3), ("heads", 2, 0), ("ffn", 0, 7), ("ffn", 2, 31)])
def test_equals_the_mean_squared_finite_difference_of_each_texts_loss(name: str, layer: int, unit: int) -> None:
    model = tiny.encoder()
    scores = getattr(fisher(model, ROWS, GOLD), name)[layer][unit]
    step = 1e-4
    slopes = [
        (loss_with(model, row, name, layer, unit, 1 + step) - loss_with(model, row, name, layer, unit, 1 - step))
        / (2 * step)
        for row in range(len(ROWS))
    ]
    assert float(scores) == pytest.approx(np.mean(np.square(slopes)), rel=2e-3)


def test_has_one_score_for_every_head_and_neuron_of_every_layer() -> None:
    scores = fisher(tiny.encoder(heads=(4, 0, 3), ffn=(48, 16, 0)), ROWS, GOLD)
    assert [len(s) for s in scores.heads] == [4, 0, 3]
    assert [len(s) for s in scores.ffn] == [48, 16, 0]


def test_without_classes_they_are_sampled_and_the_seed_decides() -> None:
    model = tiny.encoder()
    first, again, other = (fisher(model, ROWS, None, seed=seed).ffn[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.sum()) > 0  # the model's own soft labels would give exactly zero


def test_leaves_no_hook_and_no_gradient_behind() -> None:
    model = tiny.encoder()
    ids = tiny.ids(2, 6)
    before = model(ids, torch.ones_like(ids))
    fisher(model, ROWS, GOLD)
    assert torch.equal(model(ids, torch.ones_like(ids)), before)
    assert all(p.grad is None for p in model.parameters())
