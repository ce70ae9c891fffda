from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sample

from edgelm.bundle import Bundle
from edgelm.errors import BundleError, SelfTestFailed
from edgelm.runtimes import Ids, Logits, engine, selftest
from edgelm.runtimes.place import CPU
from edgelm.runtimes.selftest import Row

FP32, INT8 = sample.manifest().variants[:2]  # largest recorded differences 4.1e-6 and 0.31


class Answers:
    """Gives what a table says, by the first token."""

    def __init__(self, logits: dict[int, Any]) -> None:
        self.logits, self.asked = logits, 0

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        self.asked += 1
        assert attention_mask.all()
        return np.asarray([self.logits[int(input_ids[0, 0])]], np.float32)

    def explain(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def golden(*logits: Any) -> list[Row]:
    return [Row(np.array([index, 5], np.int32), np.asarray(one, np.float32)) for index, one in enumerate(logits)]


def content(rows: list[Row]) -> bytes:
    plain = [{"text": "t", "input_ids": row.input_ids.tolist(), "logits": row.logits.tolist()} for row in rows]
    return json.dumps({"schema": "edgelm.golden/1", "rows": plain}).encode()


def test_reads_the_rows_that_a_build_writes(tiny_bundle: Path) -> None:
    found = selftest.rows(Bundle(tiny_bundle).read(selftest.ENTRY))
    assert len(found) == 8
    assert all(row.input_ids.dtype == np.int32 and row.logits.shape == (3,) for row in found)


@pytest.mark.parametrize("raw", [b"[]", b'{"schema": "edgelm.golden/1", "rows": [{"text": "t"}]}', b"\xff"])
def test_golden_inputs_that_cannot_be_read_are_refused_in_one_line(raw: bytes) -> None:
    with pytest.raises(BundleError) as caught:
        selftest.rows(raw)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["onnxruntime fp32", "onnxruntime int8-dynamic", "litert fp32", "litert int8-dynamic"])
def test_every_variant_passes_where_it_was_built(name: str, tiny_bundle: Path) -> None:
    bundle = Bundle(tiny_bundle)
    variant = next(v for v in bundle.manifest.variants if f"{v.engine} {v.precision}" == name)
    session = engine(variant.engine).load(bundle.read(variant.file), threads=1)
    verdict = selftest.compare(variant, session, selftest.rows(bundle.read(selftest.ENTRY)))
    selftest.enforce(verdict, variant)
    if "EDGELM_BUNDLES" not in os.environ:  # built by this process: elsewhere, only what is enforced holds
        assert verdict.difference <= variant.parity.max_abs_diff * (1 + 1e-6)


def test_the_figures_are_those_of_numpy() -> None:
    rows = golden([1.0, -2.0], [0.5, 0.25])
    verdict = selftest.compare(INT8, Answers({0: [1.3, -2.0], 1: [0.5, 0.65]}), rows)
    assert verdict.difference == pytest.approx(0.4)
    assert verdict.mean == pytest.approx(np.sqrt((0.3**2 + 0.4**2) / 4))
    assert (verdict.rows, verdict.passed) == (2, True)
    assert verdict.bound == pytest.approx(2 * 0.31 + 2e-3)


@pytest.mark.parametrize("wrong", [[1.0, -1.3], [1.5, -1.5], [np.nan, -2.0], [np.inf, -2.0], [-2.0, 1.0]])
def test_what_is_wrong_by_more_than_was_recorded_fails_and_is_named(wrong: list[float]) -> None:
    rows = golden([1.0, -2.0])
    verdict = selftest.compare(INT8, Answers({0: wrong}), rows)
    assert not verdict.passed
    with pytest.raises(
        SelfTestFailed, match=r"onnxruntime int8-dynamic computes .* difference of a logit is "
    ) as caught:
        selftest.enforce(verdict, INT8)
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (1, False)


def test_fp32_may_differ_by_rounding_alone() -> None:
    rows = golden([10.0, -20.0])
    assert selftest.compare(FP32, Answers({0: [10.001, -20.001]}), rows).passed
    assert not selftest.compare(FP32, Answers({0: [10.03, -20.0]}), rows).passed


def test_fp16_may_differ_by_the_rounding_of_half_precision_and_fp32_may_not() -> None:
    rows, half = golden([10.0, -20.0]), msgspec.structs.replace(FP32, precision="fp16")
    near, far = Answers({0: [10.18, -19.82]}), Answers({0: [10.25, -20.0]})
    assert selftest.compare(half, near, rows).passed
    assert not selftest.compare(FP32, near, rows).passed
    assert not selftest.compare(half, far, rows).passed


def test_logits_of_another_shape_fail() -> None:
    with pytest.raises(SelfTestFailed, match=r"expected logits of shape \(2,\), found \(3,\)"):
        selftest.compare(INT8, Answers({0: [1.0, 2.0, 3.0]}), golden([1.0, -2.0]))


def test_a_first_load_ends_when_its_time_is_over() -> None:
    rows, now = golden(*[[1.0, 2.0]] * 8), iter(range(100))
    session = Answers({index: [1.0, 2.0] for index in range(8)})
    assert selftest.compare(INT8, session, rows, seconds=3.0, clock=lambda: float(next(now))).rows == 3
    assert selftest.compare(INT8, session, rows, seconds=0.0).rows == 1


def test_a_good_verdict_is_remembered_and_a_bad_one_is_not() -> None:
    rows, good, bad = golden([1.0, -2.0]), Answers({0: [1.0, -2.0]}), Answers({0: [3.0, -2.0]})
    for _ in range(2):
        with pytest.raises(SelfTestFailed):
            selftest.tested(INT8, bad, lambda: content(rows), threads=1, place=CPU)
    assert bad.asked == 2
    first = selftest.tested(INT8, good, lambda: content(rows), threads=1, place=CPU)
    again = selftest.tested(INT8, good, lambda: pytest.fail("read again"), threads=1, place=CPU)
    assert (first[1], again[1], first[0]) == (False, True, again[0])
    assert good.asked == 1
    assert not selftest.tested(INT8, good, lambda: content(rows), threads=2, place=CPU)[1]
    assert not selftest.tested(FP32, good, lambda: content(rows), threads=1, place=CPU)[1]
