from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def lab() -> Path:
    folder = os.environ.get("EDGELM_ARM")
    if not folder:
        pytest.skip("EDGELM_ARM is not set: expected the folder that benchmarks/arm/setup made")
    return Path(folder).resolve()
