"""What compression keeps: every recipe of examples/sst2 and examples/clinc150, from scratch, beside its teacher.

``make bench-compress DATA=FOLDER MODELS=FOLDER`` writes benchmarks/compression.json, one row after the other, so that
a run that was ended goes on where it was; ``--only sst2/smallest`` does one row again. benchmarks/pareto.py makes the
document and the picture of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgelm import build, data, recipe, tasks
from edgelm.bundle import Bundle, staged
from edgelm.check import Reference
from edgelm.console import progress
from edgelm.devices.machine import machine
from edgelm.errors import GateFailed
from edgelm.manifest import Variant
from edgelm.model import linear_macs, parameters
from edgelm.profile.inputs import token_ids
from edgelm.profile.timing import interleaved
from edgelm.recipe import Located
from edgelm.runtimes import Session, engine
from edgelm.schema import to_dict

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "compression.json"
TASKS = ("clinc150", "sst2")
UNPRUNED = "unpruned"
TOKENS, THREADS = 32, 1


@dataclass(frozen=True)
class Task:
    """A teacher and its data."""

    name: str
    teacher: Path
    train: Path
    dev: Path

    def located(self, path: Path) -> Located:
        """A recipe of examples/, for this teacher and these texts, with int8 artifacts."""
        given = [f"data.train={self.train}", f"data.dev={self.dev}", 'export.device="generic-x86_64"']
        return recipe.read(path, [*given, 'export.precisions=["int8-dynamic"]']).with_model(str(self.teacher))


def main() -> None:
    """Measure what is asked for, or what is not yet there."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="folder with sst2/ and clinc150/")
    arguments.add_argument("--models", type=Path, required=True, help="folder with the teachers")
    arguments.add_argument("--only", nargs="*", help="TASK/RECIPE: measure these again")
    given = arguments.parse_args()
    kept: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    rows = {(row["task"], row["recipe"]): row for row in kept.get("rows", ())}
    for name in TASKS:
        folder, models = given.data.resolve() / name, given.models.resolve()
        task = Task(name, models / f"{name}-teacher", folder / "train.jsonl", folder / "dev.jsonl")
        names = [UNPRUNED, *sorted(path.stem for path in (ROOT / "examples" / name).glob("*.toml"))]
        wanted = [one for one in names if (f"{name}/{one}" in given.only if given.only else (name, one) not in rows)]
        with tempfile.TemporaryDirectory(prefix="edgelm-bench-") as made:
            whole = _unpruned(task, Path(made)) if wanted else Path(made)
            for one in wanted:
                rows[name, one] = measured(task, one, whole)
                _write(rows)


def measured(task: Task, name: str, whole: Path) -> dict[str, Any]:
    """One row: accuracy beside the teacher's, sizes, and the latency of the int8 artifacts beside the unpruned ones."""
    path = whole.with_suffix(".toml") if name == UNPRUNED else ROOT / "examples" / task.name / f"{name}.toml"
    located, start = task.located(path), time.monotonic()
    compressed = build.compress(located, progress=progress)
    seconds = time.monotonic() - start
    out = whole.with_name("small.edgelm")
    variants, refused = _exported(compressed, located, out)
    original, model = compressed.original.model, compressed.model
    texts = data.read(task.dev, model.config.labels)
    before = Reference(original, compressed.original.tokenizer, compressed.max_tokens, texts)
    after = Reference(model, compressed.tokenizer, compressed.max_tokens, texts)
    assert texts.gold is not None
    return {
        "task": task.name,
        "recipe": name,
        "settings": to_dict(located.recipe) | {"model": task.teacher.name, "data": _hashes(task)},
        "seconds": round(seconds, 1),
        "macs": round(linear_macs(original.config) / linear_macs(model.config), 3),
        "parameters": parameters(model),
        "heads": model.config.heads,
        "ffn": model.config.ffn,
        "vocab": model.config.vocab_size,
        "new_unknown": _unknown(compressed.tokenizer, after) - _unknown(compressed.original.tokenizer, before),
        "teacher": tasks.accuracy(before.logits, texts.gold).value,
        "accuracy": tasks.accuracy(after.logits, texts.gold).value,
        **_loss(before, after),
        "fp32_checkpoint_bytes": 4 * parameters(original),
        "variants": [
            {
                "engine": variant.engine,
                "precision": variant.precision,
                "bytes": variant.bytes,
                "accuracy": variant.score.value if variant.score else None,
                **_latency(variant.engine, variant.file, out, whole),
            }
            for variant in variants
        ],
        "refused": refused,
        "machine": to_dict(machine()),
    }


def _exported(compressed: build.Compressed, located: Located, out: Path) -> tuple[tuple[Variant, ...], str | None]:
    """The artifacts, or which of them is outside its gate: a result like any other, that ends no run of an hour."""
    try:
        return build.export(compressed, located, out, progress=progress).variants, None
    except GateFailed as exc:
        return (), str(exc)


def _unpruned(task: Task, folder: Path) -> Path:
    """The teacher's own int8 artifacts, which the others are measured beside."""
    path = folder / "whole.toml"
    path.write_text('schema = "edgelm.recipe/1"\n')
    located = task.located(path)
    build.export(build.compress(located), located, path.with_suffix(".edgelm"), progress=progress)
    return path.with_suffix(".edgelm")


def _loss(before: Reference, after: Reference) -> dict[str, Any]:
    """Points lost on the same texts, with the 95 % interval of the paired difference (normal approximation)."""
    gold = before.texts.gold
    right = [(one.logits.argmax(-1) == gold).astype(np.float64) for one in (before, after)]
    apart = 100 * (right[0] - right[1])
    error = 1.96 * float(apart.std(ddof=1)) / math.sqrt(len(apart))
    mean = float(apart.mean())
    return {"loss": round(mean, 3), "interval": [round(mean - error, 3), round(mean + error, 3)], "n": len(apart)}


def _unknown(tokenizer: bytes, reference: Reference) -> int:
    """How many [UNK] the dev texts are cut into."""
    vocab = json.loads(tokenizer)["model"]["vocab"]
    return sum(int((row == vocab["[UNK]"]).sum()) for row in reference.rows)


def _latency(name: str, file: str, small: Path, whole: Path) -> dict[str, float]:
    """Median milliseconds of an artifact and of its unpruned like, in turns."""
    sessions: dict[str, Session] = {
        key: engine(name).load(Bundle(path).read(file), threads=THREADS)
        for key, path in (("small", small), ("whole", whole))
    }
    requests = {key: partial(session.run, *token_ids(TOKENS, batch=1, vocab=1000)) for key, session in sessions.items()}
    samples = interleaved(requests, warmup=20, seconds=4.0, min_count=300)
    for session in sessions.values():
        session.close()
    small_ms, whole_ms = (statistics.median(samples[key]) / 1e6 for key in ("small", "whole"))
    return {
        "p50_ms": round(small_ms, 4),
        "unpruned_p50_ms": round(whole_ms, 4),
        "faster": round(whole_ms / small_ms, 2),
    }


def _hashes(task: Task) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (task.train, task.dev)}


def _write(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    content = {"schema": "edgelm.bench-compress/1", "tokens": TOKENS, "threads": THREADS, "rows": [*rows.values()]}
    with staged(OUT) as staging:
        staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
