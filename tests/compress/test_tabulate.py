from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from edgelm.compress import latency
from edgelm.compress.latency import Subject, Table, position_rows
from edgelm.compress.tabulate import cold_ms, tabulate
from edgelm.exporters import exporter
from edgelm.model import Encoder
from edgelm.runtimes import engine

FORMATS = {"onnxruntime": "onnx", "litert": "tflite"}
LENGTHS = (8, 32)


@pytest.fixture(scope="module", params=sorted(FORMATS))
def table(request: pytest.FixtureRequest) -> Table:
    subject = Subject(
        engine=request.param,
        precision="int8-dynamic",
        threads=1,
        dim=32,
        head_dim=8,
        heads=4,
        ffn=48,
        labels=3,
        lengths=LENGTHS,
    )
    return tabulate(subject, shares=(0.5, 1.0), count=10)


def test_it_has_every_kind_of_sublayer_from_nothing_to_the_widest(table: Table) -> None:
    widest = {"attention": 4, "ffn": 48, "last_attention": 4, "last_ffn": 48}
    for kind, most in widest.items():
        points = getattr(table, kind)
        assert [point.units for point in points] == [0, most // 2, most]
        assert all(len(point.ms) == len(LENGTHS) for point in points)
    assert all(ms > 0 for ms in table.fixed.ms)


def test_a_table_is_kept_for_this_machine(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path))
    assert latency.cached(table.subject) is None
    kept = latency.keep(table)
    assert latency.cached(table.subject) == latency.read(kept) == table
    assert list(tmp_path.iterdir()) == [kept]


def test_the_size_of_an_artifact_is_foretold(table: Table) -> None:
    shape = replace(tiny.encoder().config, heads=(4, 2, 0, 3), ffn=(48, 0, 16, 24))
    form = exporter(FORMATS[table.subject.engine])
    artifact = form.export(Encoder(shape).eval(), ["int8-dynamic"], LENGTHS, tell=lambda report: None)
    found = table.predict_bytes(shape, position_rows(table.subject.engine, LENGTHS))
    assert found == pytest.approx(len(artifact["int8-dynamic"]), rel=0.03)  # of so small a one, most is the graph


def test_what_does_nothing_takes_no_time() -> None:
    null = engine("null").load(b"3", threads=1)
    found = cold_ms({"a": null, "b": null}, 8, vocab=100, count=5)
    assert set(found) == {"a", "b"}
    assert all(0 <= ms < 5 for ms in found.values())
