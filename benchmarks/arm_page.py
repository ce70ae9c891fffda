"""Writes what the tests on emulated ARM cores found into docs/arm.md; ``--check`` only says whether it is the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from readme import rendered

from edgelm.profile.table import NONE, Table, markdown
from page import publish

ROOT = Path(__file__).parent.parent
RESULT, DOCUMENT = ROOT / "benchmarks" / "arm.json", ROOT / "docs" / "arm.md"


def main() -> None:
    """Write the block of the page, or check it."""
    block = tests(json.loads(RESULT.read_text(encoding="utf-8")))
    publish(DOCUMENT, rendered(DOCUMENT.read_text("utf-8"), {"tests": block}), by="make arm-page")


def tests(result: Mapping[str, Any]) -> str:
    """What passed and what was skipped on each core, and how far the outputs are from those of x86, as Markdown."""
    cores = result["cores"]
    columns = ("", "", *(f"{core['core'].replace('cortex-a', 'Cortex-A')}" for core in cores))
    rows = [("tests", what, *(str(core[what]) for core in cores)) for what in ("passed", "failed")]
    for reason in dict.fromkeys(reason for core in cores for reason in core["skipped"]):
        rows.append(("skipped", _short(reason), *(str(core["skipped"].get(reason, 0)) for core in cores)))
    rows.append(("minutes", "", *(f"{core['seconds'] / 60:.1f}" for core in cores)))
    for variant in dict.fromkeys(variant for core in cores for variant in core["max_abs_diff"]):
        rows.append(("largest difference of an output", variant, *(_difference(core, variant) for core in cores)))
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{markdown(Table('', columns, tuple(rows)))}\n{versions}.\n"


def _short(reason: str) -> str:
    """Without the cure."""
    return re.split(": (?=pip|expected)", reason)[0]


def _difference(core: Mapping[str, Any], variant: str) -> str:
    value = core["max_abs_diff"].get(variant)
    return NONE if value is None else f"{value:.1g}"


if __name__ == "__main__":
    main()
