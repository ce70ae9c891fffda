from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from edgelm.errors import DataError, GateFailed
from edgelm.exporters import exporter, parity
from edgelm.manifest import Parity, Precision
from edgelm.model import Encoder
from edgelm.recipe import DEFAULT_GATES, Gate
from edgelm.runtimes import Ids, Logits, Session, engine

Artifacts = dict[tuple[str, Precision], bytes]
GOOD = Parity(rows=300, max_abs_diff=0.3, agreement=0.99, kl=0.002, hostile_rows=10, hostile_max_abs_diff=0.4)
GATE = Gate(max_abs_diff=2.0, agreement=0.97, kl=0.05, accuracy_loss=1.0)


class Altered:
    """A session that gives the module's logits after a change of the caller's."""

    def __init__(self, model: Encoder, change: Callable[[Logits, Ids], None]) -> None:
        self.model, self.change, self.shapes = model, change, list[tuple[int, ...]]()

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self.shapes.append(input_ids.shape)
        assert (np.sort(attention_mask)[:, ::-1] == attention_mask).all()
        assert not input_ids[attention_mask == 0].any()
        with torch.no_grad():
            logits = self.model(torch.from_numpy(input_ids), torch.from_numpy(attention_mask)).numpy().copy()
        self.change(logits, input_ids)
        found: Logits = logits
        return found

    def explain(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def _nothing(logits: Logits, ids: Ids) -> None:
    pass


def _tiny_difference(figures: Parity) -> None:
    assert figures.max_abs_diff < 5e-6
    assert figures.hostile_max_abs_diff < 5e-6
    assert figures.kl < 1e-9
    assert figures.agreement == 1.0


def test_every_variant_is_close_to_the_module_and_passes_its_gate(
    variant: tuple[str, Precision, bytes], session: Session, model: Encoder, rows: list[Ids]
) -> None:
    form, precision, _ = variant
    found = parity.check(model, session, rows, rows[:4])
    gates = {
        "fp32": DEFAULT_GATES["fp32"],
        # random weights, in rows of 64: they bear four bits less than trained ones
        "int4-weights": Gate(max_abs_diff=0.8, agreement=0.7, kl=0.05, accuracy_loss=0.0),
    }
    eight = Gate(max_abs_diff=0.2, agreement=0.9, kl=0.01, accuracy_loss=0.0)
    parity.enforce(found, gates.get(precision, eight), f"{form} {precision}")
    assert (found.rows, found.hostile_rows) == (24, 4)
    assert found.max_abs_diff > 0


def test_the_module_itself_has_no_difference(model: Encoder, rows: list[Ids]) -> None:
    _tiny_difference(parity.check(model, Altered(model, _nothing), rows, rows[:4]))


def test_every_row_is_run_alone_and_in_a_padded_batch(model: Encoder, rows: list[Ids]) -> None:
    session, steps = Altered(model, _nothing), list[int]()
    parity.check(model, session, rows[:10], rows[3:5], advance=steps.append)
    alone = [(1, len(row)) for row in rows[:10]]
    assert session.shapes == [*alone, (8, 64), (2, 7), (1, 20), (1, 64), (2, 64)]
    assert sum(steps) == 2 * 12


def test_the_reference_is_that_of_each_row_alone_and_keeps_the_mode(model: Encoder, rows: list[Ids]) -> None:
    with torch.no_grad():
        expected = np.concatenate([model(torch.from_numpy(row[None]), torch.ones(1, len(row))).numpy() for row in rows])
    model.set_dropout(0.5)
    model.train()
    try:
        found = parity.reference(model, rows)
        assert model.training
    finally:
        model.eval()
        model.set_dropout(0.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)


def test_figures_are_what_they_say(model: Encoder, rows: list[Ids]) -> None:
    def shift(logits: Logits, ids: Ids) -> None:
        if ids.shape == (1, 16):  # 3 of the 24 rows, alone: the second class wins
            logits[0] = [0.0, 100.0, 0.0]

    expected = np.zeros((24, 3), np.float32)
    expected[:, 0] = math.log(2)  # p = 1/2, 1/4, 1/4
    found = parity.check(model, Altered(model, shift), rows, (), expected=list(expected))
    truth = parity.reference(model, rows)
    sixteen = np.array([len(row) == 16 for row in rows])
    given = np.where(sixteen[:, None], [[0.0, 100.0, 0.0]], truth)
    p = np.array([0.5, 0.25, 0.25])
    q = np.exp(given) / np.exp(given).sum(-1, keepdims=True)
    assert found.max_abs_diff == pytest.approx(np.abs(given - expected).max(), abs=1e-4)
    assert found.agreement == pytest.approx((given.argmax(-1) == 0).mean())
    assert found.kl == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-5)
    assert found.hostile_max_abs_diff == 0.0


def test_the_divergence_does_not_overflow(model: Encoder, rows: list[Ids]) -> None:
    huge = np.tile(np.array([5000.0, 0.0, -5000.0], np.float32), (24, 1))

    def same(logits: Logits, ids: Ids) -> None:
        logits[:] = [5000.0, 0.0, -5000.0]

    assert parity.check(model, Altered(model, same), rows, (), expected=list(huge)).kl == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["alone", "padded", "hostile"])
def test_a_logit_that_is_no_number_always_fails(model: Encoder, rows: list[Ids], value: float, where: str) -> None:
    hostile = [np.arange(5, dtype=np.int32)]

    def spoil(logits: Logits, ids: Ids) -> None:
        kind = "hostile" if ids.shape == (1, 5) else "alone" if len(ids) == 1 else "padded"
        if kind == where:
            logits[-1, 2] = value

    found = parity.check(model, Altered(model, spoil), rows, hostile)
    open_gate = Gate(max_abs_diff=math.inf, agreement=0.0, kl=math.inf, accuracy_loss=100.0)
    with pytest.raises(GateFailed, match=r"tflite fp32: .* is not a finite number"):
        parity.enforce(found, open_gate, "tflite fp32")


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_a_corrupted_weight_is_caught_and_the_variant_named(
    form: str, artifacts: Artifacts, model: Encoder, rows: list[Ids]
) -> None:
    spoiled = {"onnx": _spoil_onnx, "tflite": _spoil_tflite}[form](artifacts[form, "int8-dynamic"])
    session = engine(exporter(form).ENGINE).load(spoiled, threads=1)
    found = parity.check(model, session, rows, rows[:1])
    with pytest.raises(GateFailed, match=f"^{form} int8-dynamic: .*gate") as raised:
        parity.enforce(found, DEFAULT_GATES["int8-dynamic"], f"{form} int8-dynamic")
    assert "on 24 texts" in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agreement": 0.91}, "onnx fp32: agreement 0.91 on 300 texts is below the gate's 0.97"),
        ({"max_abs_diff": 2.5}, "onnx fp32: largest difference of a logit 2.5 on 300 texts is above the gate's 2"),
        (
            {"hostile_max_abs_diff": 7.0},
            "onnx fp32: largest difference of a logit 7 on 10 hostile inputs is above the gate's 2",
        ),
        ({"kl": 0.0512}, "onnx fp32: mean divergence in nats 0.0512 on 300 texts is above the gate's 0.05"),
        ({"agreement": math.nan}, "onnx fp32: agreement nan on 300 texts is below the gate's 0.97"),
    ],
)
def test_each_figure_outside_the_gate_is_named_with_its_limit(changes: dict[str, float], message: str) -> None:
    figures = {field: getattr(GOOD, field) for field in GOOD.__struct_fields__} | changes
    with pytest.raises(GateFailed) as raised:
        parity.enforce(Parity(**figures), GATE, "onnx fp32")
    assert str(raised.value) == message
    assert raised.value.exit_code == 1


def test_all_figures_outside_the_gate_are_named_at_once() -> None:
    bad = Parity(rows=3, max_abs_diff=3.0, agreement=0.5, kl=1.0, hostile_rows=1, hostile_max_abs_diff=math.inf)
    with pytest.raises(GateFailed) as raised:
        parity.enforce(bad, GATE, "onnx fp32")
    assert len(str(raised.value).split("; ")) == 4


def test_figures_within_the_gate_or_on_it_pass() -> None:
    parity.enforce(GOOD, GATE, "onnx fp32")
    edge = Parity(rows=1, max_abs_diff=2.0, agreement=0.97, kl=0.05, hostile_rows=1, hostile_max_abs_diff=2.0)
    parity.enforce(edge, GATE, "onnx fp32")


def test_no_rows_are_no_proof(model: Encoder) -> None:
    with pytest.raises(DataError, match="expected at least one, found none"):
        parity.check(model, Altered(model, _nothing), (), ())


def test_hostile_texts_hold_what_they_should() -> None:
    assert "" in parity.HOSTILE_TEXTS
    assert "\N{GRINNING FACE}" * 300 in parity.HOSTILE_TEXTS
    assert any(len(text.split()) == 1 and len(text) == 1 for text in parity.HOSTILE_TEXTS)
    assert any(len(text.split()) > 512 for text in parity.HOSTILE_TEXTS)
    assert all(text.encode("utf-8") is not None for text in parity.HOSTILE_TEXTS)


def _spoil_onnx(artifact: bytes) -> bytes:
    """The last layer's output projection with the signs of its int8 weights turned."""
    proto = onnx.load_from_string(artifact)
    weight = next(
        t for t in proto.graph.initializer if list(t.dims) == [48, 64] and t.data_type == onnx.TensorProto.INT8
    )
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    return bytes(proto.SerializeToString())


def _spoil_tflite(artifact: bytes) -> bytes:
    """The same, in place."""
    model, changed = schema.Model.GetRootAs(artifact), bytearray(artifact)
    graph = model.Subgraphs(0)
    tensors = (graph.Tensors(i) for i in range(graph.TensorsLength()))
    weight = next(t for t in tensors if list(t.ShapeAsNumpy()) == [64, 48] and t.Type() == schema.TensorType.INT8)
    buffer = model.Buffers(weight.Buffer())
    part = np.frombuffer(changed, np.int8, buffer.Size(), buffer.Offset())
    part *= -1
    return bytes(changed)
