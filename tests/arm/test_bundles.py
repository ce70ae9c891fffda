"""Every variant of every bundle of the tests answers on this core as where the bundle was made."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import msgspec
import numpy as np
import pytest
from bundles import Answers

from edgelm.bundle import Bundle
from edgelm.devices import cpu

FOLDER = os.environ.get("EDGELM_BUNDLES")
PATHS = sorted(Path(FOLDER).glob("*.edgelm")) if FOLDER else []
VARIANTS = [(path, variant) for path in PATHS for variant in Bundle(path).manifest.variants]
NAMES = [f"{path.stem} {variant.engine} {variant.precision}" for path, variant in VARIANTS]

pytestmark = pytest.mark.skipif(not FOLDER, reason="EDGELM_BUNDLES is not set: expected what tests/bundles.py made")


def told(answer: Any) -> Any:
    """An answer without its figures: labels, words, where they stand."""
    if isinstance(answer, dict):
        return {key: told(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [told(value) for value in answer]
    return None if isinstance(answer, float) else answer


def best(task: str, answers: list[Any]) -> list[Any]:
    """Of each answer what is likeliest."""
    return [answer[:1] if task == "fill-mask" else answer for answer in answers]


@pytest.mark.parametrize(("path", "variant"), VARIANTS, ids=NAMES)
def test_answers_as_where_it_was_made(path: Path, variant: Any, record_property: Callable[[str, object], None]) -> None:
    in_float = (variant.engine, variant.precision) == bundles.FOUR and bundles.rounds(cpu.isa()) == "float"
    name = f"{variant.file} {bundles.IN_FLOAT}" if in_float else variant.file
    there = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=dict[str, Answers])[name]
    here = bundles.answered(path, variant)
    pairs = list(zip(here.arrays(), there.arrays(), strict=True))
    difference = max(float(np.abs(found - expected).max()) for found, expected in pairs)
    largest = max(float(np.abs(expected).max()) for _, expected in pairs)
    record_property(f"{variant.engine} {variant.precision}", difference)
    assert pairs
    if variant.precision == "fp32" or in_float:
        assert difference <= 1e-4
    if variant.precision == "fp16":  # computed in half precision by some cores, in single by others: labels may turn
        assert difference <= 0.01 * largest
        return
    task = Bundle(path).manifest.task
    if task == "feature-extraction":
        assert min(float(found @ expected) for found, expected in pairs) > 0.999  # of length 1: their cosine
    else:
        assert told(best(task, here.answers)) == told(best(task, there.answers))
