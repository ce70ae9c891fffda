"""Does a budget come true? The latency and the size that the search predicts, beside what is measured.

A teacher is pruned to a share of its own predicted latency on each engine, exported, and timed. One table is measured
for each engine first, unless the cache folder has it. ``make bench-budget DATA=FOLDER MODELS=FOLDER`` writes the result
as JSON. The machine should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from edgelm import checkpoint, console, data
from edgelm.bundle import staged
from edgelm.checkpoint import Checkpoint
from edgelm.compress import target
from edgelm.compress.distill import Dev
from edgelm.compress.points import lost
from edgelm.compress.prune import prune
from edgelm.compress.tabulate import cold_ms
from edgelm.compress.target import Target
from edgelm.devices.machine import machine
from edgelm.exporters import exporter
from edgelm.manifest import Precision
from edgelm.model import Encoder
from edgelm.recipe import Budget, Prune
from edgelm.runtimes import engine
from edgelm.schema import to_dict
from edgelm.text import Tokenizer

ROOT = Path(__file__).parent.parent
ENGINES = ("onnxruntime", "litert")
DIVISORS = (1.5, 2.0, 3.0)
TOKENS, LENGTHS = 32, (16, 32, 64, 128)
PRECISION: Precision = "int8-dynamic"
SAMPLES = 512  # it is latencies that are looked at, not accuracies


def main() -> None:
    """Run everything; about 10 minutes, half of it when the tables are there."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="folder with clinc150/train.jsonl and dev.jsonl")
    arguments.add_argument("--models", type=Path, required=True, help="folder with clinc150-teacher")
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "budget.json")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    teacher = checkpoint.read(given.models / "clinc150-teacher")
    rows = [row for name in ENGINES for row in measure(name, teacher, given.data / "clinc150")]
    result = {
        "schema": "edgelm.bench-budget/1",
        "machine": to_dict(machine()),
        "model": "clinc150-teacher",
        "precision": PRECISION,
        "threads": 1,
        "budget_tokens": TOKENS,
        "largest_error": max(abs(p / m - 1) for row in rows for p, m in (one[1:] for one in row["ms"])),
        "rows": rows,
    }
    with staged(given.out) as staging:
        staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        figures = "  ".join(f"{tokens}: {predicted:.2f}/{found:.2f}" for tokens, predicted, found in row["ms"])
        print(f"{row['engine']} / {row['divisor']:g}: tokens: predicted/measured ms  {figures}")
    print(f"largest error {100 * result['largest_error']:.1f} %")


def measure(name: str, teacher: Checkpoint, folder: Path) -> list[dict[str, Any]]:
    """One engine: the teacher and its prunings, timed in turn."""
    start = time.monotonic()
    shape = teacher.model.config
    aim = target.of(
        Budget(p50_ms=1e9, tokens=TOKENS), name, LENGTHS, shape, shape.vocab_size, progress=console.progress
    )
    seconds = time.monotonic() - start
    models = [(1.0, teacher.model, 0.0), *pruned(aim, teacher, folder)]
    form = exporter(engine(name).FORMAT)
    with ExitStack() as stack:
        artifacts, sessions = list[bytes](), {}
        for divisor, model, _ in models:
            artifacts.append(form.export(model, [PRECISION], LENGTHS, tell=lambda report: None)[PRECISION])
            sessions[str(divisor)] = engine(name).load(artifacts[-1], threads=1)
            stack.callback(sessions[str(divisor)].close)
        found = {tokens: cold_ms(sessions, tokens, vocab=shape.vocab_size, count=100) for tokens in LENGTHS}
    return [
        {
            "engine": name,
            "divisor": divisor,
            "heads": model.config.heads,
            "ffn": model.config.ffn,
            "ms": [
                (tokens, aim.table.predict_ms(model.config, tokens), found[tokens][str(divisor)]) for tokens in LENGTHS
            ],
            "bytes": (aim.predicted(model.config)["bytes"], len(artifact)),
            "points_lost_untrained": points,
            "table_seconds": round(seconds, 1),
        }
        for (divisor, model, points), artifact in zip(models, artifacts, strict=True)
    ]


def pruned(aim: Target, teacher: Checkpoint, folder: Path) -> list[tuple[float, Encoder, float]]:
    """Divisor, model, and the points of accuracy it lost: pruned and fitted, not trained."""
    labels = teacher.model.config.labels
    tokenizer = Tokenizer(teacher.tokenizer, max_tokens=max(LENGTHS), pad_token_id=teacher.model.config.pad_token_id)
    train, texts = (data.read(folder / f"{name}.jsonl", labels) for name in ("train", "dev"))
    assert texts.gold is not None
    dev, rows = Dev(tokenizer.encode(list(texts.texts)), texts.gold), tokenizer.encode(list(train.texts))
    found = []
    for divisor in DIVISORS:
        choose = aim.choose(16, aim.ms(teacher.model.config) / divisor)
        model, _ = prune(teacher.model, Prune(samples=SAMPLES), rows, train.gold, choose=choose)
        found.append((divisor, model, lost(teacher.model, model, dev)))
    return found


if __name__ == "__main__":
    main()
