"""What ONNX Runtime's profiler tells of a real model, against the work that the architecture says there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import sample

from edgelm.bundle import Bundle
from edgelm.profile.inputs import token_ids
from edgelm.profile.layers import assigned
from edgelm.profile.ops import profile_ops
from edgelm.runtimes.given import opened

TOKENS = 13


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_each_layer_does_the_work_that_the_architecture_says(precision: str, tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    (variant,) = [v for v in bundle.manifest.variants if (v.engine, v.precision) == ("onnxruntime", precision)]
    request = token_ids(TOKENS, batch=1, vocab=bundle.manifest.model.vocab)
    timed = profile_ops(opened(bundle, variant), request, threads=1, count=5)
    expected = sample.layer_macs(bundle, TOKENS)
    found = dict.fromkeys(expected, 0)
    for op in assigned(timed, len(bundle.manifest.model.heads)):
        found[op.layer] += op.macs
        assert op.int8 == (precision == "int8-dynamic" and op.macs > 0 and op.kind != "Attention")
    assert found == expected
