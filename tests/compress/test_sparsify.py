from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray

from edgelm import compression, recipe
from edgelm.compress.distill import distill
from edgelm.compress.sparsify import hold, sparsify
from edgelm.compress.state import State
from edgelm.exporters import onnx
from edgelm.model import Encoder, EncoderConfig
from edgelm.recipe import Distill, Sparsity

ROWS = [tiny.ids(1, n, seed=seed)[0].numpy().astype(np.int32) for seed, n in enumerate([5, 9, 12, 7] * 20)]
CONFIG = Distill(epochs=2, batch=20, lr=1e-2)


def matrices(model: Encoder) -> dict[str, NDArray[np.float32]]:
    """The weights that are pruned, by the names that transformers' checkpoints would lead one to."""
    named = {name: tensor.numpy() for name, tensor in model.state_dict().items() if tensor.ndim == 2}
    return {name: tensor for name, tensor in named.items() if name.startswith("layers.") or "word" in name}


def distilled(model: Encoder, after_step: Callable[[], None] | None, state: State | None = None) -> Encoder:
    teacher = tiny.encoder()
    return distill(model, teacher, CONFIG, ROWS, ROWS, (0, 1, 2), after_step=after_step, state=state)[0]


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 0.87, 0.999])
def test_the_smallest_of_each_matrix_are_zero_in_the_very_number_asked_for(share: float) -> None:
    dense = tiny.encoder()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    sparse, report = sparsify(dense, Sparsity(share=share))
    for name, after in matrices(sparse).items():
        weight = before[name].numpy()
        zero = after == 0
        assert zero.sum() == round(share * weight.size)
        assert np.abs(weight[zero]).max(initial=0) <= np.abs(weight[~zero]).min()
        assert np.array_equal(after[~zero], weight[~zero])
    assert report.zeros == sum(int((tensor == 0).sum()) for tensor in matrices(sparse).values())
    assert report.weights == sum(tensor.size for tensor in matrices(sparse).values())
    others = set(before) - set(matrices(sparse))
    assert all(torch.equal(before[name], sparse.state_dict()[name]) for name in others)
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())


@pytest.mark.parametrize(("share", "embeddings"), [(0.0, 0.7), (0.3, 0.6), (0.3, 0.0)])
def test_the_word_embeddings_may_have_a_share_of_their_own(share: float, embeddings: float) -> None:
    sparse, _ = sparsify(tiny.encoder(), Sparsity(share=share, embeddings=embeddings))
    for name, weight in matrices(sparse).items():
        assert (weight == 0).sum() == round((embeddings if "word" in name else share) * weight.size), name


def test_equal_weights_are_told_apart() -> None:
    dense = tiny.encoder()
    with torch.no_grad():
        dense.embeddings.word.weight.fill_(0.5)
    sparse, _ = sparsify(dense, Sparsity(share=0.25))
    assert (sparse.embeddings.word.weight == 0).float().mean() == pytest.approx(0.25, abs=1e-4)


def test_zeros_stay_zero_through_distillation_and_the_rest_is_trained() -> None:
    sparse, _ = sparsify(tiny.encoder(), Sparsity(share=0.6))
    before = {name: weight.copy() for name, weight in matrices(sparse).items()}
    after = matrices(distilled(sparse, hold(sparse)))
    for name, weight in before.items():
        assert np.array_equal(after[name] == 0, weight == 0), name
        assert not np.array_equal(after[name], weight), name


def test_without_being_held_they_would_not_stay() -> None:
    sparse, _ = sparsify(tiny.encoder(), Sparsity(share=0.6))
    before = {name: (weight == 0).sum() for name, weight in matrices(sparse).items() if "word" not in name}
    after = matrices(distilled(sparse, None))
    assert all((after[name] == 0).sum() < zeros / 2 for name, zeros in before.items())


def test_an_interrupted_run_goes_on_to_the_very_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgelm.compress.state.INTERVAL", 0.0)
    whole, cut, again = (sparsify(tiny.encoder(), Sparsity(share=0.6))[0] for _ in range(3))
    expected = distilled(whole, hold(whole)).state_dict()
    held, steps = hold(cut), itertools.count(1)

    def killed() -> None:
        held()
        if next(steps) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distilled(cut, killed, State(tmp_path / "state", "job"))
    found = distilled(again, hold(again), State(tmp_path / "state", "job")).state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_a_build_sparsifies_what_was_pruned_and_trimmed_and_holds_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"text": text or "play", "label": tiny.LABELS[i % 3]} for i, text in enumerate(tiny.TEXTS * 4)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data, share, once = {"train": str(tmp_path / "train.jsonl")}, {"share": 0.4}, {"epochs": 1}
    located = recipe.of(data=data, prune={"macs": 1.5, "multiple_of": 8}, vocab={}, sparsity=share, distill=once)
    found = compression.compress(located.with_model(str(tiny_checkpoint)))
    assert list(found.report) == ["data", "prune", "vocab", "sparsity", "distill"]
    for name, weight in matrices(found.model).items():
        assert (weight == 0).sum() == round(0.4 * weight.size), name


@pytest.mark.parametrize(("packed", "told"), [("none", True), ("deflate", False)])
def test_zeros_that_gain_nothing_are_told_of(
    packed: str, told: bool, tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "play music"}')
    export = {"device": "generic-x86_64", "compress": packed}
    located = recipe.of(data={"train": str(tmp_path / "train.jsonl")}, sparsity={"share": 0.5}, export=export)
    compression.compress(located.with_model(str(tiny_checkpoint)))
    assert ("export.compress" in caplog.text) == told


def test_the_more_zeros_the_smaller_the_download() -> None:
    torch.manual_seed(0)
    shape = EncoderConfig(
        vocab_size=2000, dim=128, head_dim=32, heads=(4,), ffn=(512,), max_positions=16, labels=tiny.LABELS
    )
    dense = Encoder(shape).eval()
    half, fifth = (sparsify(dense, Sparsity(share=share))[0] for share in (0.5, 0.8))
    assert size(fifth) < 0.65 * size(half) < 0.65 * 0.75 * size(dense)


def size(model: Encoder) -> int:
    """Of the deflated int8 artifact."""
    return len(zlib.compress(onnx.export(model, ["int8-dynamic"], [16])["int8-dynamic"], 9))
