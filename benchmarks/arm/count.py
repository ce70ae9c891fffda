"""What a request costs on an ARM core: the instructions it executes, for each variant of a bundle.

Instructions: a cost, not a latency. They are exact, and the same on every run; how long they take depends on the
core's pipelines and memory, which are not emulated. ``docs/arm.md`` says more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelm import __version__
from edgelm.bundle import Bundle, staged
from edgelm.errors import DataError, DeviceUnavailable, EdgelmError
from edgelm.manifest import Variant

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "build" / "arm"
CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
MEANING = "instructions executed by one request on one thread: a cost, not a latency"
_REQUEST = str(Path(__file__).with_name("request.py"))
_TOLERANCE = 1e-4


def instructions(
    bundle: Path | str, cores: Sequence[str] = CORES, tokens: int = 32, lab: Path | str = LAB
) -> list[dict[str, Any]]:
    """Count every variant of a bundle on every core.

    Args:
        bundle: the ``.edgelm`` file.
        cores: names of emulated cores.
        tokens: of the request, without padding.
        lab: the folder that ``benchmarks/arm/setup`` made.

    Returns:
        A row for each variant and core, with the keys that ``docs/arm.md`` explains.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: the bundle does not take so many tokens.
        DeviceUnavailable: there is no lab, it has no such core, or a variant does not run in it.
    """
    return list(_counts(Path(bundle).resolve(), cores, tokens, Path(lab).resolve()))


def emulate(lab: Path, core: str, *arguments: str) -> tuple[str, list[dict[str, int]]]:
    """Run the lab's Python on a core.

    Returns:
        What it printed, and the counts between each pair of markers.

    Raises:
        DeviceUnavailable: it failed; with its last line.
    """
    with tempfile.NamedTemporaryFile(prefix="edgelm-arm-") as log:
        counting = ["-seed", "1", "-plugin", f"{lab}/counter.so", "-d", "plugin", "-D", log.name]
        printed = _run(f"on {core}", [*emulator(lab, core), *counting, python(lab), *arguments], environment(lab))
        lines = Path(log.name).read_text(encoding="utf-8").splitlines()
    return printed, [json.loads(line) for line in lines]


def emulator(lab: Path, core: str) -> list[str]:
    """The command that emulates a core; what follows is QEMU's options, and a program of the guest."""
    # QEMU was downloaded with the C library that it needs, so that library's loader starts it.
    libraries = f"{lab}/host/lib/x86_64-linux-gnu"
    command = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path"]
    command += [f"{libraries}:{lab}/host/usr/lib/x86_64-linux-gnu", f"{lab}/host/usr/bin/qemu-aarch64"]
    return [*command, "-cpu", core, "-L", f"{lab}/cores/{core}"]


def python(lab: Path) -> str:
    """The guest's Python."""
    return f"{lab}/guest/usr/bin/python3.11"


def environment(lab: Path) -> dict[str, str]:
    """What the guest's Python needs to find its packages, and edgelm, and to begin every run the same."""
    return {
        "PYTHONPATH": f"{lab}/site:{ROOT}",
        "PYTHONPYCACHEPREFIX": f"{lab}/pycache",  # filled by setup, and left as it is: every run begins the same
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _counts(bundle: Path, cores: Sequence[str], tokens: int, lab: Path) -> Iterator[dict[str, Any]]:
    manifest = Bundle(bundle).manifest
    if not 1 <= tokens <= manifest.max_tokens:
        raise DataError(f"{bundle} takes 1 to {manifest.max_tokens} tokens, found {tokens}: ask for so many")
    for variant in manifest.variants:
        for core, executed, here, there in requested(bundle, variant.file, tokens, cores, lab):
            yield _count(variant, core, tokens, executed, here, there)


def requested(
    path: Path, detail: str, tokens: int, cores: Sequence[str] = CORES, lab: Path = LAB
) -> Iterator[tuple[str, dict[str, int], dict[str, Any], dict[str, Any]]]:
    """One request on this machine and on every core; arguments as those of ``request.py``.

    Returns:
        The core, what it executed, and what was printed here and there: ``version`` of the engine, ``logits``.

    Raises:
        DeviceUnavailable: there is no lab, it has no such core or another engine, or the request does not run.
    """
    if not (lab / ".ready").exists():
        raise DeviceUnavailable(f"expected a lab in {lab}, found none: run benchmarks/arm/setup {lab}")
    known = sorted(path.name for path in (lab / "cores").iterdir())
    if unknown := sorted(set(cores) - set(known)):
        raise DeviceUnavailable(f"expected cores among {', '.join(known)}, found {', '.join(unknown)}: ask for those")
    request = [_REQUEST, str(path), detail, str(tokens)]
    here = json.loads(_run("on this machine", [sys.executable, *request], {**os.environ, "PYTHONPATH": str(ROOT)}))
    for core in cores:
        printed, (executed,) = emulate(lab, core, *request)
        there = json.loads(printed)
        if here["version"] != there["version"]:
            found = f"expected the engine's {here['version']} as here, found {there['version']}"
            raise DeviceUnavailable(f"in the lab, {found}: install what constraints.txt pins, and run setup again")
        yield core, executed, here, there


def _count(
    variant: Variant, core: str, tokens: int, executed: dict[str, int], here: dict[str, Any], there: dict[str, Any]
) -> dict[str, Any]:
    """What was executed, and how the logits there compare with those here."""
    difference = float(np.abs(np.subtract(here["logits"], there["logits"])).max())
    same = bool(np.argmax(here["logits"]) == np.argmax(there["logits"]))
    agree = difference <= _TOLERANCE if variant.precision == "fp32" else same
    row: dict[str, Any] = {"engine": variant.engine, "version": there["version"], "precision": variant.precision}
    return row | {"core": core, "tokens": tokens} | executed | {"agree": agree, "max_abs_diff": difference}


def _run(where: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise DeviceUnavailable(f"{where}: expected exit code 0, found {done.returncode}; see its last line: {reason}")
    return done.stdout


def main() -> None:
    """Count, and tell it as lines and as JSON."""
    arguments = argparse.ArgumentParser(description=f"The {MEANING}.")
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--core", default=",".join(CORES), help="emulated cores, with commas between")
    arguments.add_argument("--tokens", type=int, default=32, help="of the request")
    arguments.add_argument("--lab", type=Path, default=LAB, help="the folder that benchmarks/arm/setup made")
    arguments.add_argument("--json", type=Path, help="write the counts into this file")
    given = arguments.parse_args()
    counts = []
    print(f"{MEANING}; {given.tokens} tokens")
    for count in _counts(given.bundle.resolve(), given.core.split(","), given.tokens, given.lab.resolve()):
        counts.append(count)
        print(*(f"{key}={value}" for key, value in count.items()), flush=True)
    if given.json:
        result = {"schema": "edgelm.arm/1", "edgelm": __version__, "meaning": MEANING, "counts": counts}
        with staged(given.json) as staging:
            staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if not all(count["agree"] for count in counts):
        sys.exit("count.py: expected agree=True in every line, found others: those logits are not this machine's")


if __name__ == "__main__":
    try:
        main()
    except EdgelmError as exc:
        print(f"count.py: {exc}", file=sys.stderr)
        sys.exit(exc.exit_code)
