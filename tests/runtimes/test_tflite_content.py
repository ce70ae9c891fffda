"""One signature at a time: read by LiteRT's own schema, and run beside the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgelm.bundle import Bundle
from edgelm.runtimes.tflite_content import Content

NAMES = ("tokens_8", "tokens_16", "tokens_32")


@pytest.fixture
def artifact(tiny_bundle: Path) -> bytes:
    return Bundle(tiny_bundle).read("model.int8-dynamic.tflite")  # of its own: it is written to


def told(content: bytes) -> list[tuple[str, list[int]]]:
    """Of each signature its name, and the shape of the first input of its subgraph."""
    model = schema.Model.GetRootAs(content)
    assert model.SubgraphsLength() == model.SignatureDefsLength()
    found = []
    for index in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(index)
        graph = model.Subgraphs(signature.SubgraphIndex())
        found.append((signature.SignatureKey().decode(), graph.Tensors(graph.Inputs(0)).ShapeAsNumpy().tolist()))
    return found


def test_it_shows_one_signature_after_the_other(artifact: bytes) -> None:
    assert sorted(told(artifact)) == sorted((name, [1, int(name[7:])]) for name in NAMES)
    content = Content(artifact)
    assert sorted(content.names) == sorted(NAMES)
    assert content.divisible
    for name in (*NAMES, *reversed(NAMES)):
        shown = content.only(name)
        assert shown is artifact  # no copy
        assert told(shown) == [(name, [1, int(name[7:])])]


def test_interpreters_of_one_content_compute_what_one_of_the_whole_does(artifact: bytes) -> None:
    whole = Interpreter(model_content=bytes(bytearray(artifact)))
    content = Content(artifact)
    made = {name: Interpreter(model_content=content.only(name)) for name in NAMES}
    assert all(list(one.get_signature_list()) == [name] for name, one in made.items())
    for name in (*NAMES, *NAMES):
        ids = np.arange(5, 5 + int(name[7:]), dtype=np.int32)[None]
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        (expected,), (found,) = (one.get_signature_runner(name)(**feed).values() for one in (whole, made[name]))
        np.testing.assert_array_equal(found, expected)


def test_where_a_subgraph_is_no_signature_of_its_own_the_whole_is_shown(artifact: bytes) -> None:
    whole = Content(artifact)
    whole._write(whole._signatures, 2)  # the last signature is none any more; its subgraph is still there
    content = Content(artifact)
    assert (content.names, content.divisible) == (whole.names[:2], False)
    content.only(content.names[0])
    model = schema.Model.GetRootAs(artifact)
    assert (model.SubgraphsLength(), model.SignatureDefsLength()) == (3, 2)


@pytest.mark.parametrize("content", [b"", b"no", b"no model at all", bytes(4096), b"\xff" * 100])
def test_what_is_no_model_has_no_signatures(content: bytes) -> None:
    assert Content(content).names == ()
