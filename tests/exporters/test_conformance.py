"""What every exporter owes, built in or installed by others: see ``edgelm.exporters.Exporter``."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils

from edgelm.exporters import exporter, names
from edgelm.manifest import Precision
from edgelm.model import Encoder
from edgelm.runtimes import Ids, Session

Variant = tuple[str, Precision, bytes]
LENGTHS = (8, 16, 32, 64)
"""Of the artifacts of conftest.py."""

ITSELF = {"fp32": 3e-6}
"""How far an artifact may be from itself, where other rows or the padding change the ranges of dynamic quantization."""


def drawn(model: Encoder, batch: int, tokens: int, seed: int) -> Ids:
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (batch, tokens), np.int32)


def test_a_batch_gives_each_row_what_it_gets_alone(variant: Variant, session: Session, model: Encoder) -> None:
    ids = drawn(model, 5, 16, seed=0)
    alone = [session.run(row[None], np.ones_like(row)[None])[0] for row in ids]
    found = session.run(ids, np.ones_like(ids))
    assert np.ptp(found, axis=0).max() > 2 * ITSELF.get(
        variant[1], 0.15
    )  # an exporter that mixes up rows would be seen
    np.testing.assert_allclose(found, alone, rtol=0, atol=ITSELF.get(variant[1], 0.15))


def test_what_the_padding_holds_does_not_matter(variant: Variant, session: Session, model: Encoder) -> None:
    ids, mask = drawn(model, 3, 20, seed=1), np.ones((3, 20), np.int32)
    for row, length in enumerate((2, 9, 19)):
        mask[row, length:] = 0
    zeros, junk = ids * mask, np.where(mask == 1, ids, drawn(model, 3, 20, seed=2))
    assert (zeros != junk).any()
    np.testing.assert_allclose(
        session.run(junk, mask), session.run(zeros, mask), rtol=0, atol=ITSELF.get(variant[1], 0.15)
    )


@pytest.mark.parametrize("tokens", [2, max(LENGTHS)])
def test_the_shortest_and_the_longest_request_get_finite_logits(session: Session, model: Encoder, tokens: int) -> None:
    ids = drawn(model, 2, tokens, seed=3)
    found = session.run(ids, np.ones_like(ids))
    assert found.shape == (2, 3)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_a_request_that_is_too_long_is_never_answered(session: Session, model: Encoder) -> None:
    ids = drawn(model, 1, max(LENGTHS) + 1, seed=4)
    with pytest.raises(Exception, match=r".+"):  # engines raise types of their own
        session.run(ids, np.ones_like(ids))


def test_batch_and_tokens_are_free_or_there_is_a_signature_for_each_length(variant: Variant) -> None:
    form, _, artifact = variant
    if form == "onnx":
        graph = onnx.load_from_string(artifact).graph
        shapes = {
            value.name: tuple(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim)
            for value in (*graph.input, *graph.output)
        }
        inputs = ("batch", "tokens")
        assert shapes == {"input_ids": inputs, "attention_mask": inputs, "logits": ("batch", 3)}
    elif form == "tflite":
        interpreter = Interpreter(model_content=artifact)
        found = {
            name: [tuple(one["shape"]) for one in interpreter.get_signature_runner(name).get_input_details().values()]
            for name in interpreter.get_signature_list()
        }
        assert found == {f"tokens_{length}": [(1, length)] * 2 for length in LENGTHS}
    else:
        pytest.skip(f"nothing reads {form} here")


def test_an_artifact_says_what_it_is(variant: Variant, model: Encoder) -> None:
    form, precision, artifact = variant
    found = json.loads({"onnx": _onnx_metadata, "tflite": _tflite_metadata}.get(form, _skip)(artifact))
    assert found == {
        "edgelm": version("edgelm"),
        "task": "text-classification",
        "labels": list(model.config.labels),
        "multi_label": False,
        "precision": precision,
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", names())
def test_the_same_model_gives_the_same_bytes(form: str) -> None:
    rows = [tiny.ids(1, 4 + index % 5, seed=index)[0].numpy().astype(np.int32) for index in range(40)]
    model, precisions = tiny.encoder(), exporter(form).PRECISIONS
    one, other = (exporter(form).export(model, precisions, (16,), calibration=rows, tell=lambda _: None) for _ in "12")
    assert list(one) == list(precisions)
    assert one == other


def _onnx_metadata(artifact: bytes) -> str:
    session: Any = onnxruntime.InferenceSession(artifact, providers=["CPUExecutionProvider"])
    found: str = session.get_modelmeta().custom_metadata_map["edgelm"]  # as an app would ask for it
    return found


def _tflite_metadata(artifact: bytes) -> str:
    """As readers of metadata look for it: inside the flatbuffer."""
    model = flatbuffer_utils.schema_fb.Model.GetRootAs(artifact)
    entries = [model.Metadata(index) for index in range(model.MetadataLength())]
    (buffer,) = [model.Buffers(entry.Buffer()) for entry in entries if entry.Name() == b"edgelm"]
    return bytes(buffer.DataAsNumpy()).decode()


def _skip(artifact: bytes) -> str:
    pytest.skip(f"nothing reads the metadata of {artifact[:8]!r} here")
