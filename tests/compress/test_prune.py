from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from edgelm.compress.prune import prune
from edgelm.errors import RecipeError
from edgelm.model import Encoder, linear_macs
from edgelm.recipe import Prune

ROWS = [tiny.ids(1, n, seed=seed)[0].numpy().astype(np.int32) for seed, n in enumerate([5, 9, 12, 7] * 30)]
GOLD = np.arange(len(ROWS)) % 3


def logits(model: Encoder, tokens: int = 8) -> torch.Tensor:
    ids = tiny.ids(16, tokens, seed=99)
    with torch.no_grad():
        found: torch.Tensor = model(ids, torch.ones_like(ids))
    return found


def test_removes_matrices_rather_than_zeroing_them() -> None:
    dense = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48))
    pruned, report = prune(dense, Prune(macs=2.0, multiple_of=8), ROWS, GOLD)
    sizes = sum(p.numel() for n, p in pruned.named_parameters() if n.startswith("layers") and p.ndim == 2)
    assert sizes == linear_macs(pruned.config)
    assert report.macs == pytest.approx(linear_macs(dense.config) / sizes)
    assert report.macs == pytest.approx(2.0, rel=0.15)
    assert all(width % 8 == 0 for width in report.ffn)


def test_does_not_touch_the_dense_model() -> None:
    dense = tiny.encoder()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    prune(dense, Prune(macs=2.0), ROWS, GOLD)
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())


def test_a_unit_that_does_nothing_is_removed_without_loss() -> None:
    dense = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48))
    with torch.no_grad():
        for layer in dense.layers:
            assert isinstance(layer.attention.out, torch.nn.Linear)
            assert isinstance(layer.ffn.down, torch.nn.Linear)
            layer.attention.out.weight[:, 8:16] = 0  # head 1 of each layer
            layer.ffn.down.weight[:, 16:32] = 0
    pruned, report = prune(dense, Prune(heads=3, ffn=32), ROWS, GOLD)
    assert (report.heads, report.ffn) == ((3, 3, 3), (32, 32, 32))
    torch.testing.assert_close(logits(pruned), logits(dense), atol=1e-5, rtol=0)


def test_fitting_brings_the_pruned_model_nearer_to_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48))
    fitted, _ = prune(dense, Prune(macs=2.0, by="fisher"), ROWS, GOLD)
    monkeypatch.setattr("edgelm.compress.prune.reconstruct", lambda *_, **__: None)
    plain, _ = prune(dense, Prune(macs=2.0, by="fisher"), ROWS, GOLD)
    truth = logits(dense)
    assert (logits(fitted) - truth).square().mean() < 0.5 * (logits(plain) - truth).square().mean()


def test_nothing_removed_changes_nothing() -> None:
    dense = tiny.encoder()
    same, report = prune(dense, Prune(layers=(0, 1, 2)), ROWS, GOLD)
    assert report.macs == 1.0
    torch.testing.assert_close(logits(same), logits(dense), atol=1e-5, rtol=0)


def test_strides_take_rows_that_count_and_leave_more_of_the_widths() -> None:
    dense = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48))
    whole, strided = (prune(dense, Prune(macs=3.0, strides=s), ROWS, GOLD) for s in ((), (1, 2, 1)))
    assert strided[0].config.strides == (1, 2, 1)
    assert sum(strided[1].ffn) > sum(whole[1].ffn)
    assert all(report.macs == pytest.approx(3.0, rel=0.15) for _, report in (whole, strided))


def test_fitting_knows_which_rows_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, config = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48)), Prune(macs=1.5, strides=(2, 1, 1))
    fitted, _ = prune(dense, config, ROWS, GOLD)
    monkeypatch.setattr("edgelm.compress.prune.reconstruct", lambda *_, **__: None)
    plain, _ = prune(dense, config, ROWS, GOLD)
    truth = logits(dense)
    assert (logits(fitted) - truth).square().mean() < 0.8 * (logits(plain) - truth).square().mean()


def test_layers_can_be_dropped() -> None:
    pruned, report = prune(tiny.encoder(), Prune(layers=(0, 2)), ROWS, GOLD)
    assert report.layers == (0, 2)
    assert pruned.config.heads == (4, 3)
    assert torch.isfinite(logits(pruned)).all()


def test_the_layers_that_score_worst_go_if_a_number_is_given() -> None:
    dense = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48))
    with torch.no_grad():
        for projection in (dense.layers[1].attention.out, dense.layers[1].ffn.down):
            projection.get_parameter("weight").mul_(1e-3)
    for by in ("surgeon", "fisher", "taylor", "magnitude"):
        assert prune(dense, Prune(layers=2, by=by), ROWS, GOLD)[1].layers == (0, 2)


def test_a_sublayer_may_be_emptied() -> None:
    pruned, report = prune(tiny.encoder(), Prune(macs=30.0), ROWS, GOLD)
    assert 0 in (*report.heads, *report.ffn)
    assert torch.isfinite(logits(pruned)).all()


def test_the_seed_decides() -> None:
    config = Prune(macs=2.0, samples=40, seed=3)
    first, again = (prune(tiny.encoder(), config, ROWS, GOLD)[0] for _ in range(2))
    assert torch.equal(logits(first), logits(again))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Prune(), "macs"),
        (Prune(macs=2.0, ffn=16), "not both"),
        (Prune(layers=(0, 3)), "0 to 2"),
        (Prune(heads=3), "more than the model has"),
        (Prune(layers=()), "indices"),
        (Prune(layers=4), "found 4"),
        (Prune(macs=2.0, strides=(2, 1)), "each of the 3 layers"),
        (Prune(macs=2.0, layers=2, strides=(1, 2, 1)), "each of the 2 layers"),
        (Prune(macs=2.0, strides=(1, 1, 2)), "the last one 1"),
    ],
)
def test_a_config_that_cannot_be_done_is_refused(config: Prune, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        prune(tiny.encoder(), config, ROWS, GOLD)
