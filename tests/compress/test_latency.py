from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from table import made

from edgelm.compress import latency
from edgelm.errors import RecipeError
from edgelm.schema import encode

SHAPE = tiny.encoder(heads=(4, 1, 3), ffn=(48, 0, 16)).config


def test_an_encoder_costs_the_sum_of_its_sublayers() -> None:
    expected = 2.0 + 2 * (0.1 + 4 + 0.1 + 4.8) + 2 * (0.1 + 1 + 0.1) + 2 * (0.9 + 0.48)
    assert made().predict_ms(SHAPE, 16) == pytest.approx(expected)


def test_a_sublayer_costs_what_it_does_at_the_rows_that_it_has() -> None:
    strided = replace(SHAPE, strides=(1, 2, 1))  # attention 1 reads 16 rows and computes 8, what follows has 8
    expected = 2.0 + 2 * (0.1 + 4 + 0.1 + 4.8) + 1.5 * (0.1 + 1) + 0.1 + (0.9 + 0.48)
    assert made().predict_ms(strided, 16) == pytest.approx(expected)
    halves = replace(SHAPE, strides=(4, 1, 1))  # 4 rows are fewer than any that were measured
    expected = 2.0 + 1.25 * (0.1 + 4) + 0.5 * (0.1 + 4.8 + 0.1 + 1 + 0.1 + 0.9 + 0.48)
    assert made().predict_ms(halves, 16) == pytest.approx(expected)


def test_between_widths_and_lengths_it_is_linear() -> None:
    table = made()
    ours = table.ms("ffn", np.array([0, 6, 12, 30]), 12)
    np.testing.assert_allclose(ours, 1.5 * (0.1 + 0.1 * np.array([0, 6, 12, 30])))


def test_below_the_narrowest_width_the_line_goes_on_and_only_nothing_costs_nothing() -> None:
    graph = tuple(latency.Point(units=n, ms=(0.5 * (n > 0) + n,) * 3, bytes=70 * (n > 0) + n) for n in (0, 16, 32, 48))
    table = replace_points(made(), graph)
    np.testing.assert_allclose(table.ms("ffn", np.array([0, 1, 16, 40]), 16), [0, 1.5, 16.5, 40.5])
    np.testing.assert_allclose(table.bytes("ffn", np.array([0, 1, 16, 40])), [0, 71, 86, 110])


def test_a_wider_sublayer_never_costs_less() -> None:
    odd = latency.Point(units=24, ms=(0.0, 0.0, 0.0), bytes=100)
    table = made()
    bent = replace_points(table, tuple(odd if p.units == 24 else p for p in table.ffn))
    assert (np.diff(bent.ms("ffn", np.arange(49), 16)) >= 0).all()


def replace_points(table: latency.Table, points: tuple[latency.Point, ...]) -> latency.Table:
    keys = {name: getattr(table, name) for name in table.__struct_fields__}
    return latency.Table(**(keys | {"ffn": points}))


def test_bytes_follow_the_vocabulary_and_the_positions() -> None:
    table = made()
    small, large = (table.predict_bytes(replace(SHAPE, vocab_size=n), 64) for n in (100, 1100))
    assert large - small == 36 * 1000
    assert table.predict_bytes(SHAPE, 65) - table.predict_bytes(SHAPE, 64) == 4 * 32


def test_a_table_is_kept_under_its_subject_and_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path / "new"))
    table = made()
    assert latency.cached(table.subject) is None
    path = latency.keep(table)
    assert latency.cached(table.subject) == latency.read(path) == table
    assert latency.cached(made("litert").subject) is None
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff"])
def test_what_is_no_table_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"table\.json"):
        latency.read(path)
    with pytest.raises(RecipeError, match="no such latency table"):
        latency.read(tmp_path / "none.json")


def test_a_table_of_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(encode(made()).replace(b"latency/1", b"latency/9"))
    with pytest.raises(RecipeError, match="latency/9"):
        latency.read(path)
