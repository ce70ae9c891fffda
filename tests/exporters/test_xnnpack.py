from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import tiny
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils

from edgelm import compression, recipe
from edgelm.exporters import Report, tflite, xnnpack
from edgelm.manifest import Precision

NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
POOLINGS: dict[str, Any] = {
    "mean": {"pooling": "mean", "normalize": True},
    "cls": {"pooling": "cls", "normalize": False},
}
OUTSIDE: dict[Precision, set[str]] = {"fp16": {"DEQUANTIZE"}}
"""What XNNPACK does not take besides what it never takes: the table of embeddings in float16."""

HEADS = [
    *((task, "") for task in tiny.HEADS if task != "feature-extraction"),
    *(("feature-extraction", p) for p in POOLINGS),
]


@pytest.fixture(scope="module", params=HEADS, ids=[" ".join(head).strip() for head in HEADS])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[Precision, tuple[bytes, Report]]:
    """A small model of every task, in every precision."""
    task, pooling = request.param
    folder = tiny.saved("distilbert", task, tmp_path_factory.mktemp("task") / "checkpoint")
    export = {"device": "generic-arm64", "lengths": [8]}
    located = recipe.of(features=POOLINGS.get(pooling), export=export).with_model(str(folder))
    model, reports = compression.compress(located).model, list[Report]()
    rows = [tiny.ids(1, 4 + index % 5, seed=index)[0].numpy().astype(np.int32) for index in range(40)]
    artifacts = tflite.export(model, tflite.PRECISIONS, (8,), calibration=rows, tell=reports.append)
    return {report.precision: (artifacts[report.precision], report) for report in reports}


@pytest.mark.parametrize("precision", tflite.PRECISIONS)
def test_no_task_needs_64_bit_integers_select_flex_or_custom_operators(
    precision: Precision, made: dict[Precision, tuple[bytes, Report]]
) -> None:
    artifact, report = made[precision]
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(artifact))
    types = {tensor.type for graph in model.subgraphs for tensor in graph.tensors}
    assert schema.TensorType.INT64 not in types
    kinds = {NAMES[code.builtinCode] for code in model.operatorCodes}
    assert not kinds & {"SELECT", "SELECT_V2", "CUSTOM", "WHERE", "IF", "WHILE"}
    assert not [code.customCode for code in model.operatorCodes if code.customCode]  # Flex operators have such a name
    found = xnnpack.outside(artifact)
    assert set(found) == {"CAST", "EMBEDDING_LOOKUP", "RESHAPE"} | OUTSIDE.get(precision, set())
    assert found["EMBEDDING_LOOKUP"] == 1
    assert report.outside == xnnpack.phrase(artifact)
    assert "EMBEDDING_LOOKUP" in report.outside


def test_without_the_delegate_every_operator_is_outside(artifacts: dict[tuple[str, Precision], bytes]) -> None:
    artifact = artifacts["tflite", "int8-dynamic"]
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(artifact))
    graph = model.subgraphs[0]
    every = Counter(NAMES[model.operatorCodes[one.opcodeIndex].builtinCode] for one in graph.operators)
    plain = Interpreter(
        model_content=artifact, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    plain.allocate_tensors()
    assert Counter(xnnpack.walked(plain._get_ops_details(), graph.outputs)) == every
    assert xnnpack.outside(artifact).total() == 4 < every.total()


def test_what_runs_is_found_backwards_through_the_delegates() -> None:
    def node(name: str, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
        return {"op_name": name, "inputs": inputs, "outputs": outputs}

    nodes = [
        node("CAST", [0], [1]),
        node("ADD", [1, 9], [2]),
        node("GATHER", [2], [3]),
        node("MUL", [3, 2], [4]),
        node("TOPK_V2", [4], [5, 6]),
        node("SORTED_BY_NOBODY", [4], [7]),
        node("DELEGATE", [1, 9], [2]),
        node("DELEGATE", [3, 2], [4]),
    ]
    assert sorted(xnnpack.walked(nodes, [5])) == ["CAST", "GATHER", "TOPK_V2"]
    assert sorted(xnnpack.walked(nodes, [4])) == ["CAST", "GATHER"]
    assert sorted(xnnpack.walked(nodes[:4], [4])) == ["ADD", "CAST", "GATHER", "MUL"]


def test_nothing_outside_is_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xnnpack, "outside", lambda artifact: Counter[str]())
    assert xnnpack.phrase(b"") == ""
