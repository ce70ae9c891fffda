from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray

from edgelm.compress.surgeon import Curvature, curvature, removal_costs

ROWS = [tiny.ids(1, n, seed=n)[0].numpy().astype(np.int32) for n in (5, 9, 5, 12, 9, 7)]
GOLD = np.array([0, 1, 2, 0, 1, 2])
RANDOM = np.random.default_rng(0)
READ = RANDOM.normal(size=(400, 12)) @ (np.eye(12) + 0.2 * RANDOM.normal(size=(12, 12)))  # correlated columns
WEIGHT = RANDOM.normal(size=(5, 12))
ROOT = RANDOM.normal(size=(5, 5))


def found() -> Curvature:
    return Curvature(torch.from_numpy(READ.T @ READ / len(READ)), torch.from_numpy(ROOT.T @ ROOT))


def left_by_least_squares(gone: list[int]) -> float:
    """Half the mean squared error, through G, when numpy solves the weights of the other columns."""
    kept = [i for i in range(12) if i not in gone]
    target: NDArray[np.float64] = READ @ WEIGHT.T @ ROOT.T
    if not kept:
        return float(0.5 * np.square(target).sum() / len(READ))
    solved = np.linalg.lstsq(READ[:, kept], target, rcond=None)[0]
    return float(0.5 * np.square(target - READ[:, kept] @ solved).sum() / len(READ))


@pytest.mark.parametrize("width", [1, 3])
def test_the_cheapest_unit_costs_what_least_squares_leaves_without_it(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelm.compress.surgeon._AT_ONCE", 1)
    costs = removal_costs(torch.from_numpy(WEIGHT), found(), width)
    alone = [left_by_least_squares([*range(i * width, (i + 1) * width)]) for i in range(12 // width)]
    assert int(costs.argmin()) == int(np.argmin(alone))
    assert float(costs.min()) == pytest.approx(min(alone), rel=0.02)


def test_costs_add_up_to_what_least_squares_leaves_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelm.compress.surgeon._AT_ONCE", 1)
    costs = removal_costs(torch.from_numpy(WEIGHT), found(), 1)
    order = costs.argsort().tolist()
    for count in range(1, 13):
        assert float(costs[order[:count]].sum()) >= left_by_least_squares(order[:count]) * 0.98
    assert float(costs[order[:4]].sum()) == pytest.approx(left_by_least_squares(order[:4]), rel=0.05)


def test_of_two_units_that_say_the_same_one_costs_nothing() -> None:
    read = READ.copy()
    read[:, 7] = 2 * read[:, 3]
    same = Curvature(torch.from_numpy(read.T @ read / len(read)), found().gradients)
    costs = removal_costs(torch.from_numpy(WEIGHT), same, 1)
    first, second = sorted((float(costs[3]), float(costs[7])))
    assert first < 1e-4 * float(costs.max())
    assert second > 5 * first


def test_the_curvature_is_that_of_the_gradients_that_autograd_gives() -> None:
    model = tiny.encoder(heads=(4, 0, 3), ffn=(48, 16, 0))
    attention, neurons = curvature(model, ROWS, GOLD)
    assert [one is None for one in (*attention, *neurons)] == [False, True, False, False, False, True]
    seen = dict[str, list[torch.Tensor]](read=[], gradient=[])
    for row, gold in zip(ROWS, GOLD, strict=True):  # one text after the other, by a backward pass of its own
        ids = torch.from_numpy(row)[None].long()
        down = model.layers[0].ffn.down
        kept: list[torch.Tensor] = []
        handle = down.register_forward_hook(lambda _, args, out, kept=kept: kept.extend((args[0], out)))
        logits = model(ids, torch.ones_like(ids))
        handle.remove()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([gold]))
        seen["read"].append(kept[0][0].detach().double())
        seen["gradient"].append(torch.autograd.grad(loss, kept[1])[0][0].double())
    read, gradient = torch.cat(seen["read"]), torch.cat(seen["gradient"])
    size = gradient.square().sum(1, keepdim=True)
    assert neurons[0] is not None
    torch.testing.assert_close(neurons[0].gradients, gradient.T @ gradient / len(ROWS), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(neurons[0].inputs, (read * size).T @ read / size.sum(), rtol=1e-4, atol=1e-7)


def test_it_leaves_the_model_as_it_was() -> None:
    model = tiny.encoder().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    curvature(model, ROWS, None, seed=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
