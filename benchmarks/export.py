"""What each precision keeps and costs in each format: accuracy, size and speed of teachers exported as they are.

``make bench-export DATA=FOLDER MODELS=FOLDER`` writes the result as JSON, and its tables into docs/precisions.md. All
artifacts of a task are loaded at once and timed in turn, one request each, so that what disturbs one disturbs all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgelm import checkpoint, data, devices
from edgelm.bundle import staged
from edgelm.checkpoint import Checkpoint
from edgelm.devices.machine import detect, machine
from edgelm.exporters import EXPORTERS, Report, exporter, parity
from edgelm.runtimes import Ids, Logits, Session, engine
from edgelm.schema import to_dict
from edgelm.tasks import accuracy
from edgelm.text import Tokenizer

ROOT = Path(__file__).parent.parent
LENGTHS, TIMED, ROUNDS, WARMUP = (16, 32, 64, 128), (16, 32, 128), 31, 5


@dataclass(frozen=True)
class Task:
    """A row of the table: a teacher and its texts. ``Task.metric`` scores its outputs."""

    name: str
    model: str
    folder: str


TASKS = (Task("SST-2", "sst2-teacher", "sst2"), Task("CLINC150", "clinc150-teacher", "clinc150"))


def main() -> None:
    """Measure everything: about 10 minutes."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="folder with sst2/, clinc150/: train and dev.jsonl")
    arguments.add_argument("--models", type=Path, required=True, help="folder with sst2-teacher, clinc150-teacher")
    arguments.add_argument("--device", default=detect(), help="profile to export for; this machine's")
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "export.json")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    result = {
        "schema": "edgelm.bench-export/1",
        "machine": to_dict(machine()),
        "device": given.device,
        "int8": devices.load(given.device).int8,
        "load_start": os.getloadavg()[0],
        "rows": [row for task in TASKS for row in measure(task, given.data, given.models, given.device)],
        "load_end": os.getloadavg()[0],
    }
    with staged(given.out) as staging:
        staging.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(task: Task, texts: Path, models: Path, device: str) -> list[dict[str, Any]]:
    """Every format and precision of one teacher."""
    teacher = checkpoint.read(models / task.model)
    tokenizer = Tokenizer(teacher.tokenizer, max_tokens=max(LENGTHS), pad_token_id=0, tell=False)
    labels = teacher.model.config.labels
    train = tokenizer.encode(list(data.read(texts / task.folder / "train.jsonl", labels).texts))
    dev = data.read(texts / task.folder / "dev.jsonl", labels)
    rows, gold = tokenizer.encode(list(dev.texts)), dev.gold
    assert gold is not None
    expected = parity.reference(teacher.model, rows)
    found = []
    with ExitStack() as stack:
        sessions = list[Session]()
        for form, artifact, report in exported(teacher, train, device):
            sessions.append(engine(exporter(form).ENGINE).load(artifact, threads=1))
            stack.callback(sessions[-1].close)
            logits = answers(sessions[-1], rows)
            found.append(
                {
                    "task": task.name,
                    "engine": exporter(form).ENGINE,
                    "format": form,
                    "precision": report.precision,
                    "bytes": len(artifact),
                    "pytorch": accuracy(expected, gold).value,
                    "accuracy": accuracy(logits, gold).value,
                    "n": len(rows),
                    "agreement": float((logits.argmax(-1) == expected.argmax(-1)).mean()),
                    "max_abs_diff": float(np.abs(logits - expected).max()),
                    "notes": list(report.notes),
                }
            )
            print(json.dumps(found[-1]), flush=True)
        times = timed(sessions, teacher.model.config.vocab_size)
    return [row | {"p50_ms": dict(zip(map(str, TIMED), ms, strict=True))} for row, ms in zip(found, times, strict=True)]


def exported(teacher: Checkpoint, train: list[Ids], device: str) -> list[tuple[str, bytes, Report]]:
    """(format, artifact, report) of everything that can be written."""
    found = list[tuple[str, bytes, Report]]()
    for form in EXPORTERS:
        reports = list[Report]()
        module, int8 = exporter(form), devices.load(device).int8
        asked = teacher.model, module.PRECISIONS, LENGTHS
        artifacts = module.export(*asked, calibration=train, int8=int8, tell=reports.append)
        found += [(form, artifact, report) for artifact, report in zip(artifacts.values(), reports, strict=True)]
    return found


def answers(session: Session, rows: list[Ids]) -> Logits:
    """Logits of each row, alone at its own length."""
    return np.concatenate([session.run(row[None], np.ones_like(row)[None]) for row in rows])


def timed(sessions: list[Session], vocab: int) -> list[list[float]]:
    """Median milliseconds of each session at each length, in turn."""
    random = np.random.default_rng(0)
    medians: list[list[float]] = [[] for _ in sessions]
    for tokens in TIMED:
        ids = random.integers(0, vocab, (1, tokens), np.int32)
        samples: list[list[int]] = [[] for _ in sessions]
        for turn in range(WARMUP + ROUNDS):
            for session, series in zip(sessions, samples, strict=True):
                start = time.perf_counter_ns()
                session.run(ids, np.ones_like(ids))
                if turn >= WARMUP:
                    series.append(time.perf_counter_ns() - start)
        for series, ms in zip(samples, medians, strict=True):
            ms.append(statistics.median(series) / 1e6)
    return medians


if __name__ == "__main__":
    main()
