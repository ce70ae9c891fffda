"""How far apart two profiles of one bundle are, on a quiet machine and beside a neighbour who works now and then.

Nothing is changed between them, so every change that ``edgelm compare`` finds is a false alarm. ``make bench-noise``
writes the result as JSON; the machine should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.bundle import staged
from edgelm.devices.machine import machine
from edgelm.profile import files
from edgelm.profile.compare import compare
from edgelm.profile.stats import inside_noise
from edgelm.runs import Profile
from edgelm.schema import to_dict

ROOT = Path(__file__).parent.parent
COUNT, TOKENS, SECONDS = 10, 32, 4
NEIGHBOUR = """
import random, time
random.seed(0)
while True:
    end = time.monotonic() + random.uniform(0.5, 8.0)
    while time.monotonic() < end:
        sum(range(10_000))
    time.sleep(random.uniform(0.5, 8.0))
"""


def main() -> None:
    """Measure; about five minutes."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bundle", type=Path, default=ROOT / "build" / "noise.edgelm", help="what to measure")
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "noise.json")
    given = arguments.parse_args()
    rows = [row("alone", profiles(given.bundle))]
    with neighbour():
        rows.append(row("neighbour", profiles(given.bundle)))
    settings = {"profiles": COUNT, "tokens": TOKENS, "seconds": SECONDS}
    result = {"schema": "edgelm.bench-noise/1", "machine": to_dict(machine()), **settings, "rows": rows}
    with staged(given.out) as staging:
        staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for one in rows:
        print(one)


def profiles(bundle: Path) -> list[Profile]:
    """Several profiles of the same, each by a process of its own."""
    with tempfile.TemporaryDirectory(prefix="edgelm-noise-") as folder:
        found = []
        for index in range(COUNT):
            path = Path(folder, f"{index}.json")
            options = ["--tokens", str(TOKENS), "--seconds", str(SECONDS)]
            command = [sys.executable, "-m", "edgelm", "profile", str(bundle), *options, "--save", str(path)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            found.append(files.load(path))
        return found


def row(name: str, found: list[Profile]) -> dict[str, Any]:
    """Every profile against every later one: medians that differ, and how many are taken for a change."""
    pairs = [compare(one, two).changes for one, two in itertools.combinations(found, 2)]
    changes = [change for pair in pairs for change in pair if change.metric == "p50"]
    apart = [abs(change.factor.value - 1) for change in changes]
    return {
        "machine_is": name,
        "pairs": len(changes),
        "median": float(np.median(apart)),
        "p95": float(np.percentile(apart, 95)),
        "largest": max(apart),
        "outside_interval": sum(not inside_noise(change.factor) for change in changes) / len(changes),
        "outside_floor": sum(gap > change.noise for gap, change in zip(apart, changes, strict=True)) / len(changes),
        "disturbed": sum(change.noise > 0.02 for change in changes) / len(changes),
        "false_alarms": sum(change.verdict != "noise" for change in changes) / len(changes),
        "changes": [round(change.factor.value - 1, 5) for change in changes],
    }


@contextmanager
def neighbour() -> Iterator[None]:
    """A program that takes a core for some seconds, and leaves it for some."""
    other = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        yield
    finally:
        other.terminate()
        other.wait()


if __name__ == "__main__":
    main()
