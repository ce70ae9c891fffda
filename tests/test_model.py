from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification

from edgelm import checkpoint
from edgelm.checkpoint import Checkpoint
from edgelm.model import Encoder, attention_bias, linear_macs

DevTexts = Callable[[Checkpoint, int], tuple[torch.Tensor, torch.Tensor]]


def padded(batch: int = 4, tokens: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = tiny.ids(batch, tokens), torch.ones(batch, tokens, dtype=torch.int64)
    for row, length in enumerate((tokens, 7, 2, 1)):
        ids[row, length:], mask[row, length:] = 0, 0
    return ids, mask


@pytest.mark.parametrize("make", [tiny.distilbert, tiny.bert])
def test_gives_the_logits_of_transformers_padded_rows_included(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids, mask = padded()
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).logits
        found = checkpoint.read(folder).model(ids, mask)
    assert expected.std() > 0.1  # the classes differ, so that the comparison says something
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.data
@pytest.mark.parametrize("name", ["clinc150-teacher", "sst2-teacher"])
def test_gives_the_logits_of_transformers_on_real_weights(name: str, teachers: Path, dev_texts: DevTexts) -> None:
    theirs = AutoModelForSequenceClassification.from_pretrained(teachers / name, dtype=torch.float32).eval()
    ours = checkpoint.read(teachers / name)
    batch = dev_texts(ours, 32)
    with torch.no_grad():
        expected = theirs(input_ids=batch[0], attention_mask=batch[1]).logits
        torch.testing.assert_close(ours.model(*batch), expected, atol=1e-5, rtol=0)


def test_padding_does_not_change_a_row() -> None:
    model = tiny.encoder()
    ids, mask = padded()
    with torch.no_grad():
        together = model(ids, mask)
        alone = torch.cat([model(ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate((20, 7, 2, 1))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_last_layer_computes_only_the_cls_row_and_loses_nothing() -> None:
    model = tiny.encoder()
    ids, mask = padded()
    with torch.no_grad():
        x = model.embeddings(ids)
        for layer in model.layers:
            x = layer(x, attention_bias(mask))
        *_, last = model.hidden_states(ids, mask)
        assert last.shape == (4, 1, 32)
        torch.testing.assert_close(model(ids, mask), model.head(x, mask), atol=1e-5, rtol=0)


@pytest.mark.parametrize("strides", [(2, 1, 1), (1, 3, 1), (2, 2, 1)])
def test_a_layer_with_a_stride_gives_the_rows_that_transformers_has_there(
    strides: tuple[int, ...], tmp_path: Path
) -> None:
    folder = tiny.distilbert(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    read = checkpoint.read(folder).model
    ours = Encoder(replace(read.config, strides=strides)).eval()
    ours.load_state_dict(read.state_dict())
    ids, mask = padded()
    with torch.no_grad():
        x, seen = theirs.distilbert.embeddings(ids), mask
        for layer, stride in zip(theirs.distilbert.transformer.layer, strides, strict=True):
            bias = torch.where(seen == 1, 0.0, -torch.inf)[:, None, None, :].expand(-1, -1, x.shape[1], -1)
            x, seen = layer(x, attention_mask=bias)[:, ::stride], seen[:, ::stride]
        expected = theirs.classifier(theirs.pre_classifier(x[:, 0]).relu())
        found = ours(ids, mask)
        whole = read(ids, mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found - whole).abs().max() > 1e-3  # the rows that are left out did say something


def test_a_layer_may_lose_all_heads_or_all_neurons() -> None:
    model = tiny.encoder(heads=(0, 2, 0), ffn=(48, 0, 0))
    with torch.no_grad():
        logits = model(*padded())
    assert logits.shape == (4, 3)
    assert torch.isfinite(logits).all()
    names = set(dict(model.named_parameters()))
    assert "layers.0.attention.out.bias" in names
    assert "layers.0.attention.out.weight" not in names


def test_macs_count_the_linear_layers(tmp_path: Path) -> None:
    model = checkpoint.read(tiny.distilbert(tmp_path)).model
    matrices = [p.numel() for name, p in model.named_parameters() if name.startswith("layers") and p.ndim == 2]
    assert linear_macs(model.config) == sum(matrices)


def test_macs_count_the_rows_that_are_there() -> None:
    whole, strided = (tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48), strides=s).config for s in ((), (1, 2, 1)))
    attention, ffn = 4 * 32 * 32, 2 * 32 * 48
    assert linear_macs(whole) == 3 * (attention + ffn)
    assert linear_macs(strided) == attention + ffn + (3 / 4 * attention + ffn / 2) + (attention + ffn) / 2


def test_dropout_acts_in_training_only() -> None:
    model = tiny.encoder()
    model.set_dropout(0.5)
    with torch.no_grad():
        quiet = [model(*padded()) for _ in range(2)]
        model.train()
        noisy = [model(*padded()) for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(*noisy)
    assert isinstance(model, Encoder)
