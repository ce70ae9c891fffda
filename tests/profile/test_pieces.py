"""The pieces of a LiteRT graph, against the whole graph and against the work that the architecture says there is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sample

from edgelm.bundle import Bundle
from edgelm.errors import DataError
from edgelm.manifest import Variant
from edgelm.profile.deeper import with_ops
from edgelm.profile.inputs import token_ids
from edgelm.profile.ops_litert import chained, profile_pieces
from edgelm.profile.pieces import Cut, cut
from edgelm.runtimes import Logits, engine

TOKENS = 13  # padded to 16


def variant(bundle: Bundle, precision: str) -> Variant:
    (found,) = [v for v in bundle.manifest.variants if (v.engine, v.precision) == ("litert", precision)]
    return found


def answered(found: Cut, ids: np.ndarray, threads: int) -> Logits:
    """What the last piece gives."""
    padded, mask = np.zeros((2, 1, found.tokens), np.int32)
    padded[0, : ids.shape[1]], mask[0, : ids.shape[1]] = ids[0], 1
    feed = {found.input_ids: padded, found.attention_mask: mask}
    *_, (_, known) = chained(found.pieces, feed, threads)
    (output,) = found.pieces[-1].outputs
    logits: Logits = known[output]
    return logits


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_together_they_compute_what_the_model_does(precision: str, tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    artifact, layers = bundle.read(variant(bundle, precision).file), len(bundle.manifest.model.heads)
    ids, mask = token_ids(TOKENS, batch=1, vocab=bundle.manifest.model.vocab)
    found = cut(artifact, TOKENS, layers)
    assert found.tokens == 16
    session = engine("litert").load(artifact, threads=1)
    np.testing.assert_allclose(answered(found, ids, 1), session.run(ids, mask), rtol=0, atol=1e-6)
    session.close()


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_each_layer_does_the_work_that_the_architecture_says(precision: str, tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    request = token_ids(16, batch=1, vocab=bundle.manifest.model.vocab)
    ops = profile_pieces(
        bundle.read(variant(bundle, precision).file), request, len(bundle.manifest.model.heads), threads=1
    )
    expected = sample.layer_macs(bundle, 16)
    found = dict.fromkeys(expected, 0)
    for op in ops:
        found[op.layer] += op.macs
        assert op.us > 0
        assert op.int8 == (precision == "int8-dynamic" and op.kind == "FULLY_CONNECTED")
    assert found == expected


def test_a_piece_moves_what_comes_in_and_goes_out_and_its_constants(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    model = bundle.manifest.model
    found = cut(bundle.read(variant(bundle, "int8-dynamic").file), 16, len(model.heads))
    (piece,) = [one for one in found.pieces if one.layer == "ffn 0"]
    rows, weights, vectors = 2 * 4 * 16 * model.dim, 2 * model.dim * model.ffn[0], 4 * (model.ffn[0] + 3 * model.dim)
    assert 0 <= piece.bytes - rows - weights <= vectors + 200  # biases, unless they are zeros; shapes, axes, …


def test_a_model_of_another_framework_has_no_layers_that_are_known() -> None:
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(model=SimpleNamespace(heads=())))
    with pytest.raises(DataError, match="the layers of a model of another framework are not known: leave it out"):
        with_ops(bundle, sample.profile())


def test_what_cannot_be_cut_is_told(tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    artifact, layers = bundle.read(variant(bundle, "fp32").file), len(bundle.manifest.model.heads)
    with pytest.raises(DataError, match=r"expected a signature of 33 tokens or more, found \[8, 16, 32\]"):
        cut(artifact, 33, layers)
    with pytest.raises(DataError, match="expected 19 LayerNorms of 9 layers in the graph"):
        cut(artifact, 16, 9)
