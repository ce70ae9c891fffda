from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from torch.nn import functional

from edgelm.compress.importance import importance
from edgelm.model import Encoder
from edgelm.recipe import Scores

ROWS = [tiny.ids(1, n, seed=n)[0].numpy().astype(np.int32) for n in (5, 9, 5, 12, 9, 7)]
GOLD = np.array([0, 1, 2, 0, 1, 2])


def loss_with(model: Encoder, row: int, name: str, layer: int, unit: int | None, scale: float) -> float:
    """The loss of one text when the contribution of one head or neuron, or of all units of a layer, is scaled."""
    clone = Encoder(model.config)
    clone.load_state_dict(model.state_dict())
    part = clone.layers[layer]
    kinds = {"heads": (part.attention.out, part.attention.head_dim), "ffn": (part.ffn.down, 1)}
    ids = torch.from_numpy(ROWS[row])[None].long()
    with torch.no_grad():
        for projection, width in kinds.values() if name == "layers" else [kinds[name]]:
            weight = projection.get_parameter("weight")
            weight[:, slice(None) if unit is None else slice(unit * width, (unit + 1) * width)] *= scale
        return float(
            functional.cross_entropy(clone.double()(ids, torch.ones_like(ids)), torch.tensor([int(GOLD[row])]))
        )


@pytest.mark.parametrize("by", ["fisher", "taylor"])
@pytest.mark.parametrize(
    ("name", "layer", "unit"), [("heads", 0, 3), ("heads", 2, 0), ("ffn", 0, 7), ("ffn", 2, 31), ("layers", 1, None)]
)
def test_equals_the_mean_size_of_the_finite_differences_of_each_texts_loss(
    by: Scores, name: str, layer: int, unit: int | None
) -> None:
    model = tiny.encoder()
    found = getattr(importance(model, by, ROWS, GOLD), name)[layer]
    step = 1e-4
    slopes = [
        (loss_with(model, row, name, layer, unit, 1 + step) - loss_with(model, row, name, layer, unit, 1 - step))
        / (2 * step)
        for row in range(len(ROWS))
    ]
    sizes = np.square(slopes) if by == "fisher" else np.abs(slopes)
    assert float(found if unit is None else found[unit]) == pytest.approx(np.mean(sizes), rel=2e-3)


def test_magnitude_is_the_squared_norm_of_the_weights_of_a_unit() -> None:
    model = tiny.encoder()
    scores = importance(model, "magnitude", ROWS, None)
    layer = model.layers[1]
    rows = [part.weight[8:16].square().sum() for part in (layer.attention.q, layer.attention.k, layer.attention.v)]
    head = sum(rows) + layer.attention.out.get_parameter("weight")[:, 8:16].square().sum()
    assert float(scores.heads[1][1]) == pytest.approx(float(head), rel=1e-5)
    neuron = layer.ffn.up.weight[3].square().sum() + layer.ffn.down.get_parameter("weight")[:, 3].square().sum()
    assert float(scores.ffn[1][3]) == pytest.approx(float(neuron), rel=1e-5)
    assert float(scores.layers[1]) == pytest.approx(float(scores.heads[1].sum() + scores.ffn[1].sum()))


@pytest.mark.parametrize("by", ["fisher", "taylor", "magnitude"])
def test_has_one_score_for_every_head_neuron_and_layer(by: Scores) -> None:
    scores = importance(tiny.encoder(heads=(4, 0, 3), ffn=(48, 16, 0)), by, ROWS, GOLD)
    assert [len(s) for s in scores.heads] == [4, 0, 3]
    assert [len(s) for s in scores.ffn] == [48, 16, 0]
    assert len(scores.layers) == 3


def test_without_classes_they_are_sampled_and_the_seed_decides() -> None:
    model = tiny.encoder()
    first, again, other = (importance(model, "fisher", ROWS, None, seed=seed).ffn[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.sum()) > 0  # the model's own soft labels would give exactly zero


def test_leaves_no_hook_and_no_gradient_behind() -> None:
    model = tiny.encoder()
    ids = tiny.ids(2, 6)
    before = model(ids, torch.ones_like(ids))
    importance(model, "fisher", ROWS, GOLD)
    assert torch.equal(model(ids, torch.ones_like(ids)), before)
    assert all(p.grad is None for p in model.parameters())
