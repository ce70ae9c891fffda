from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from table import made

from edgelm.compress import latency, target
from edgelm.compress.latency import Table
from edgelm.errors import RecipeError
from edgelm.recipe import Budget
from edgelm.schema import encode

SHAPE = tiny.encoder(heads=(4, 4, 4), ffn=(48, 48, 48)).config
LENGTHS = (8, 16, 32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_bytes(encode(made()))
    return path


def resolved(budget: Budget, file: Path, engine: str = "onnxruntime") -> target.Target:
    return target.of(budget, engine, LENGTHS, SHAPE, SHAPE.vocab_size, table=file)


def test_a_table_of_a_file_is_used_without_measuring(file: Path) -> None:
    found = resolved(Budget(p50_ms=3.0, tokens=12), file)
    assert found.tokens == 12
    assert found.predicted(SHAPE)["p50_ms"] == made().predict_ms(SHAPE, 12)


def test_litert_pays_for_the_signature_that_a_text_is_padded_to(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(encode(made("litert")))
    assert resolved(Budget(p50_ms=3.0, tokens=12), path, "litert").tokens == 16


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(), "at least one of"),
        (Budget(p50_ms=1.0, tokens=64), "longest that is exported"),
        (Budget(p50_ms=1.0, tokens=8, threads=2), "threads 1 instead of 2"),
        (Budget(p50_ms=1.0, tokens=8, precision="fp32"), "precision int8-dynamic instead of fp32"),
        (Budget(p50_ms=1.0, tokens=4), "tokens from 8 to 32"),
        (Budget(p50_ms=1.0, tokens=8, precision="int8-static"), "no texts to calibrate int8-static on"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(budget: Budget, words: str, file: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        resolved(budget, file)


def test_without_a_table_one_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGELM_CACHE", str(tmp_path))
    asked = list[latency.Subject]()

    def measure(subject: latency.Subject, **_: object) -> Table:
        asked.append(subject)
        return Table(**{name: getattr(made(), name) for name in Table.__struct_fields__} | {"subject": subject})

    monkeypatch.setattr(target, "tabulate", measure)
    first, again = (target.of(Budget(p50_ms=1.0), "onnxruntime", LENGTHS, SHAPE, SHAPE.vocab_size) for _ in range(2))
    assert first.table == again.table
    assert [subject.lengths for subject in asked] == [(16, 32, 64)]  # the model takes no more than 64
