from __future__ import annotations

from typing import Any

import msgspec
import pytest
import sample

from edgelm.errors import DataError
from edgelm.profile import table_layers
from edgelm.profile.layers import assigned, by_layer
from edgelm.profile.ops import Timed, read
from edgelm.runs import Peak

PEAK = Peak(fp32_macs=1e9, int8_macs=4e9, bytes=5e8, threads=1)


def event(index: int, name: str, kind: str, ts: int, us: int, **shapes: Any) -> dict[str, Any]:
    facts = {"node_index": str(index), "op_name": kind, "provider": "CPUExecutionProvider"} | shapes
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": us, "ph": "X", "args": facts}


def timed(kind: str, us: float, inputs: Any = (), outputs: Any = ()) -> Timed:
    return Timed(name=kind.lower(), kind=kind, us=us, inputs=inputs, outputs=outputs)


ONE_LAYER = [
    timed("Gather", 5, (("int8", (1000, 16)), ("int32", (1, 8))), (("int8", (1, 8, 16)),)),
    timed("LayerNormalization", 3),
    timed("MatMul", 20, (("float", (1, 8, 16)),), (("float", (1, 8, 32)),)),
    timed(
        "Attention", 7, (("float", (1, 8, 32)), ("float", (1, 8, 32)), ("float", (1, 8, 32))), (("float", (1, 8, 32)),)
    ),
    timed("LayerNormalization", 3),
    timed("DynamicQuantizeMatMul", 10, (("float", (1, 8, 16)), ("int8", (64,))), (("float", (1, 8, 64)),)),
    timed("LayerNormalization", 2),
    timed("Gemm", 1, (("float", (1, 16)), ("float", (16, 3)), ("float", (3,))), (("float", (1, 3)),)),
]


def test_operators_are_read_with_the_mean_of_their_times() -> None:
    shapes = {"input_type_shape": [{"float": [1, 4]}, {"int64": []}], "output_type_shape": [{"float": [1, 2]}]}
    events = [{"cat": "Session", "name": "model_run", "ts": 0, "dur": 99, "args": {}}]
    for number, (first, second) in enumerate(((900, 900), (10, 4), (4000, 6), (20, 5), (1, 5))):
        events += [
            event(7, "b", "Gemm", 100 * number + 50, second),
            event(3, "a", "MatMul", 100 * number, first, **shapes),
        ]
    found = read(events, skip=1)
    assert [(one.name, one.kind, one.us) for one in found] == [("a", "MatMul", 15.0), ("b", "Gemm", 5.0)]
    assert found[0].inputs == (("float", (1, 4)), ("int64", ()))


def test_each_sublayer_ends_with_its_norm() -> None:
    found = assigned(ONE_LAYER, 1)
    assert [op.layer for op in found] == [
        *("embedding",) * 2,
        *("attention 0",) * 3,
        *("ffn 0",) * 2,
        "head",
    ]


def test_work_is_counted_from_the_shapes() -> None:
    found = {op.kind: op for op in assigned(ONE_LAYER, 1)}
    assert found["MatMul"].macs == 8 * 32 * 16
    assert found["DynamicQuantizeMatMul"].macs == 8 * 64 * 16
    assert found["Attention"].macs == 2 * 8 * 8 * 32
    assert found["Gemm"].macs == 3 * 16
    assert found["LayerNormalization"].macs == 0
    assert found["DynamicQuantizeMatMul"].bytes == 4 * 8 * 16 + 64 + 16 * 64 + 4 * 8 * 64  # the weights are packed away
    assert found["MatMul"].bytes == 4 * (8 * 16 + 16 * 32 + 8 * 32)
    assert found["Gemm"].bytes == 4 * (16 + 16 * 3 + 3 + 3)
    assert found["Gather"].bytes == 2 * 8 * 16  # the rows that are looked up, not the whole table
    assert {kind for kind, op in found.items() if op.int8} == {"DynamicQuantizeMatMul"}


def test_norms_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(DataError, match="expected 5 LayerNorms of 2 layers in what ran, found 3"):
        assigned(ONE_LAYER, 2)


def test_layers_have_their_share_and_their_roof() -> None:
    run = msgspec.structs.replace(sample.run("onnxruntime", "fp32", 8, (1,)), ops=assigned(ONE_LAYER, 1))
    found = {layer.name: layer for layer in by_layer(run, PEAK)}
    assert list(found) == ["embedding", "attention 0", "ffn 0", "head"]
    assert sum(layer.share for layer in found.values()) == pytest.approx(1)
    assert found["attention 0"].share == pytest.approx(30 / 51)
    assert (found["embedding"].roof, found["embedding"].bound) == (None, "")
    arithmetic = (8 * 32 * 16 + 2 * 8 * 8 * 32) / 1e9
    memory = 4 * (8 * 16 + 16 * 32 + 8 * 32 + 4 * 8 * 32) / 5e8
    assert arithmetic < memory
    assert found["attention 0"].roof == pytest.approx(memory / 30e-6)
    assert found["attention 0"].bound == "memory"
    assert all(layer.roof is None for layer in by_layer(run, None))
    assert by_layer(sample.run("litert", "fp32", 8, (1,)), PEAK) == ()


def test_what_is_bound_by_arithmetic_is_measured_against_the_peak_of_its_type() -> None:
    fast = msgspec.structs.replace(PEAK, bytes=1e15)
    run = msgspec.structs.replace(sample.run("onnxruntime", "fp32", 8, (1,)), ops=assigned(ONE_LAYER, 1))
    found = {layer.name: layer for layer in by_layer(run, fast)}
    assert found["ffn 0"].bound == "arithmetic"
    assert found["ffn 0"].roof == pytest.approx(8 * 64 * 16 / 4e9 / 12e-6)


def test_the_table_has_a_row_for_each_layer() -> None:
    run = msgspec.structs.replace(sample.run("onnxruntime", "fp32", 8, (1,)), ops=assigned(ONE_LAYER, 1))
    made = table_layers.layers(run, PEAK)
    assert [row[0] for row in made.rows] == ["embedding", "attention 0", "ffn 0", "head"]
    assert all(len(row) == len(made.columns) for row in made.rows)
    assert "1 GMAC/s in fp32 and 4 in int8" in table_layers.roofline(PEAK)
