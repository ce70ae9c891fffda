"""The main job as a stranger does it, and what comes of it: every figure of the README.

A fresh clone of this checkout's HEAD, ``make demo`` and ``make test`` in it, then the bundle on real held-out data, and
a teacher exported without compression. ``make bench-main DATA=FOLDER MODELS=FOLDER`` writes the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from edgelm import checkpoint
from edgelm import data as dataset
from edgelm.bundle import Bundle, staged
from edgelm.check import Reference
from edgelm.devices.machine import machine
from edgelm.profile import table
from edgelm.schema import to_dict

ROOT = Path(__file__).parent.parent
QUESTION = "how much money do i have in my account"


def main() -> None:
    """Run everything; 10 to 20 minutes."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="folder with clinc150/dev.jsonl, sst2/dev.jsonl")
    arguments.add_argument("--models", type=Path, required=True, help="folder with sst2-teacher")
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "main_job.json")
    given = arguments.parse_args()
    data, models = given.data.resolve(), given.models.resolve()
    with tempfile.TemporaryDirectory(prefix="edgelm-bench-") as name:
        result = measure(Path(name) / "edgelm", data, models)
    with staged(given.out) as staging:
        staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(clone: Path, data: Path, models: Path) -> dict[str, Any]:
    """Every figure, from a clone in an empty folder."""
    run("git", "clone", "--quiet", str(ROOT), str(clone), folder=ROOT)
    seconds = {
        "set up": timed("make", ".venv/.ready", folder=clone),
        "make demo": timed("make", "demo", folder=clone),
    }
    edgelm = str(clone / ".venv" / "bin" / "edgelm")
    built = clone / "build" / "assistant.edgelm"
    dev = {name: str(data / name / "dev.jsonl") for name in ("clinc150", "sst2")}
    bundle = Bundle(built)
    profile = bundle.profile
    assert profile is not None  # a build always measures
    overview = table.overview(bundle.manifest, profile, bundle.downloads)
    result = {
        "schema": "edgelm.bench-main/1",
        "machine": to_dict(machine()),
        "commit": run("git", "rev-parse", "HEAD", folder=clone).strip(),
        "seconds": seconds | {"make test": 0.0},
        "demo": {"columns": overview.columns, "rows": overview.rows, "title": overview.title},
        "answers": {
            engine: ask(edgelm, "run", str(built), QUESTION, "--engine", engine)["answers"][0]["label"]
            for engine in ("onnxruntime", "litert")
        },
        "clinc150": {
            "reference": original_accuracy(clone / "examples/assistant/reference", Path(dev["clinc150"])),
            "bundle": ask(edgelm, "eval", str(built), "--data", dev["clinc150"])["results"],
        },
        "sst2": sst2(edgelm, models / "sst2-teacher", dev["sst2"], clone / "build" / "sst2.edgelm"),
    }
    # a test holds the README against the committed figures, so those of this run stand there before it
    (clone / "benchmarks" / "main_job.json").write_text(json.dumps(result), encoding="utf-8")
    run("make", "readme", folder=clone)
    return result | {"seconds": seconds | {"make test": timed("make", "test", folder=clone)}}


def sst2(edgelm: str, teacher: Path, dev: str, out: Path) -> list[dict[str, Any]]:
    """A teacher exported as it is, and its accuracy in each variant."""
    run(edgelm, "export", str(teacher), "--device", "generic-x86_64", "--out", str(out), folder=out.parent)
    return list(ask(edgelm, "eval", str(out), "--data", dev)["results"])


def original_accuracy(folder: Path, dev: Path) -> float:
    """The reference checkpoint's accuracy in PyTorch, before anything is pruned or quantized."""
    original = checkpoint.read(folder)
    texts = dataset.read(dev, original.model.config.labels)
    score = Reference(original.model, original.tokenizer, original.model.config.max_positions, texts).score
    assert score is not None
    return score.value


def ask(edgelm: str, *arguments: str) -> dict[str, Any]:
    """What a command says with ``--json -``."""
    answer: dict[str, Any] = json.loads(run(edgelm, *arguments, "--json", "-", folder=ROOT))
    return answer


def timed(*command: str, folder: Path) -> float:
    """Seconds of wall time."""
    start = time.monotonic()
    run(*command, folder=folder)
    return round(time.monotonic() - start, 1)


def run(*command: str, folder: Path) -> str:
    """Standard output of a command that must succeed; the rest goes to the terminal."""
    print("$", *command, flush=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        print(done.stdout)  # what failed stands there
    done.check_returncode()
    return done.stdout


if __name__ == "__main__":
    main()
