"""The tests of what runs on a device, on emulated ARM cores: by pytest, with the engines' wheels for aarch64.

usage: PYTHONPATH=benchmarks python -m arm.suite [TEST…]        all of them, and what pytest takes, when none is named
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from arm.count import LAB, ROOT, emulator, environment, python
from edgelm import __version__
from edgelm.bundle import staged

CORES = ("cortex-a72", "cortex-a76")  # without and with 8-bit dot products
_PACKAGES = ("onnxruntime", "ai-edge-litert", "numpy", "tokenizers")


def run(core: str, lab: Path, bundles: Path, tests: Sequence[str]) -> dict[str, Any]:
    """Run tests on a core; pytest's words go to standard output.

    Args:
        core: the name of an emulated core.
        lab: the folder that ``benchmarks/arm/setup`` made.
        bundles: the folder that ``tests/bundles.py`` made.
        tests: for pytest.

    Returns:
        The exit code of pytest, and what ``summary`` tells.
    """
    with tempfile.TemporaryDirectory(prefix="edgelm-arm-") as home:
        junit = Path(home) / "junit.xml"
        command = [starter(lab, core), "-m", "pytest", "-p", "arm.guest", "-p", "no:cacheprovider"]
        found_in = {"PYTHONPATH": os.pathsep.join([environment(lab)["PYTHONPATH"], str(ROOT / "benchmarks")])}
        settings = found_in | {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home, "EDGELM_BUNDLES": str(bundles)}
        bytecode = {"PYTHONPYCACHEPREFIX": f"{lab}/pycache-tests", "PYTHONDONTWRITEBYTECODE": ""}
        begin = time.monotonic()
        done = subprocess.run(
            [*command, "-o", "junit_family=xunit1", f"--junitxml={junit}", *tests],
            cwd=ROOT,
            env=environment(lab) | bytecode | settings,
            check=False,
        )
        seconds = round(time.monotonic() - begin)
        found = summary(junit.read_text(encoding="utf-8")) if junit.exists() else {}
    return {"core": core, "exit_code": done.returncode, "seconds": seconds} | found


def starter(lab: Path, core: str) -> str:
    """A script that starts the guest's Python on a core; tests that start ``sys.executable`` start it again."""
    path = Path(f"{python(lab)}-{core}")
    command = shlex.join([*emulator(lab, core), "-0", str(path), python(lab)])
    with staged(path) as staging:
        staging.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def versions(lab: Path) -> dict[str, str]:
    """What the tests run on: the emulator, and the wheels for aarch64."""
    (qemu,) = (name for name in (lab / "packages").read_text("utf-8").splitlines() if name.startswith("qemu-user_"))
    wheels = {one.name: one.version for one in distributions(path=[str(lab / "site")])}
    return {"qemu-user": qemu.split("_")[1].replace("%3a", ":")} | {name: wheels[name] for name in _PACKAGES}


def summary(junit: str) -> dict[str, Any]:
    """What a JUnit file of pytest tells.

    Returns:
        ``passed`` and ``failed``, numbers of tests; ``skipped``, the same for each reason; ``max_abs_diff``, by engine
        and precision how far the outputs of bundles are from those of the machine that made them.
    """
    cases = list(ElementTree.fromstring(junit).iter("testcase"))
    skipped = Counter(_reason(found) for one in cases for found in one.iter("skipped"))
    failed = sum(one.find("failure") is not None or one.find("error") is not None for one in cases)
    largest: dict[str, float] = {}
    for found in (found for one in cases for found in one.iter("property")):
        name, value = str(found.get("name")), float(str(found.get("value")))
        largest[name] = max(largest.get(name, 0.0), value)
    passed = len(cases) - failed - skipped.total()
    return {"passed": passed, "failed": failed, "skipped": dict(skipped), "max_abs_diff": largest}


def _reason(skipped: ElementTree.Element) -> str:
    """Why a test was skipped; of a whole module, pytest writes (path, line, reason) into the text."""
    if skipped.get("message") == "collection skipped":
        return str(ast.literal_eval(str(skipped.text))[2]).removeprefix("Skipped: ")
    return str(skipped.get("message"))


def main() -> None:
    """Run the tests on every core, tell it as lines and as JSON."""
    arguments = argparse.ArgumentParser(description="The tests on emulated ARM cores.")
    arguments.add_argument("tests", nargs="*", default=["-m", "not slow"], help="for pytest, after --")
    arguments.add_argument("--core", default=",".join(CORES), help="emulated cores, with commas between")
    arguments.add_argument("--lab", type=Path, default=LAB, help="the folder that benchmarks/arm/setup made")
    arguments.add_argument("--bundles", type=Path, default=ROOT / "build" / "bundles", help="of tests/bundles.py")
    arguments.add_argument("--json", type=Path, help="write what was found into this file")
    given = arguments.parse_args()
    found = []
    for core in given.core.split(","):
        print(f"tests on {core}, emulated", flush=True)
        found.append(run(core, given.lab.resolve(), given.bundles.resolve(), given.tests))
    for one in found:
        print(*(f"{key}={value}" for key, value in one.items()))
    if given.json:
        result = {
            "schema": "edgelm.arm-suite/2",
            "edgelm": __version__,
            "versions": versions(given.lab),
            "cores": found,
        }
        with staged(given.json) as staging:
            staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(max(abs(one["exit_code"]) for one in found))


if __name__ == "__main__":
    main()
