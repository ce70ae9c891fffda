"""What transformers' own pipelines answer, and whether ours is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers


def same(found: Any, expected: Any) -> None:
    """The same nesting, keys and order; numbers within 1e-4."""
    if isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            same(found[key], value)
    elif isinstance(expected, float | np.floating):
        assert isinstance(found, float)
        assert found == pytest.approx(float(expected), abs=1e-4)
    else:
        assert found == expected
        assert type(found) is type(expected)


def pipeline(task: str, model: Path, **options: Any) -> Any:
    return transformers.pipeline(task, model=str(model), device=torch.device("cpu"), **options)  # type: ignore[call-overload]
