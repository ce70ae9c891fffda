"""Which part of compression buys what: importance x reconstruction x distillation, on CLINC150 at a third of the MACs.

``make bench-ablation DATA=FOLDER MODELS=FOLDER`` writes benchmarks/ablation.json, one row after the other; a run that
was ended goes on where it was. benchmarks/pareto.py puts the table into docs/compression.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from edgelm import checkpoint, data
from edgelm.bundle import staged
from edgelm.checkpoint import Checkpoint
from edgelm.compress.augment import augmented
from edgelm.compress.distill import distill
from edgelm.compress.prune import prune
from edgelm.data import Dataset
from edgelm.devices.machine import machine
from edgelm.exporters.parity import reference
from edgelm.model import Encoder
from edgelm.recipe import Distill, Prune, Scores
from edgelm.schema import to_dict
from edgelm.tasks import accuracy
from edgelm.text import Tokenizer

ROOT = Path(__file__).parent.parent
OUT = ROOT / "benchmarks" / "ablation.json"
MACS, MULTIPLE, EPOCHS, LR, AUGMENT = 3.0, 16, 2.0, 8e-4, 4
SCORES: tuple[Scores, ...] = ("magnitude", "taylor", "fisher", "surgeon")


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        by: importance.
        reconstruct: whether layers are fitted back.
        distil: how: ``no``; ``logits`` alone; logits and ``states``, as the product does; the same with new texts,
            ``augment``; or ``gradual``, half of the steps at the square root of the MACs, pruned again after them. All
            take the same number of steps.
    """

    by: Scores
    reconstruct: bool
    distil: str


@dataclass(frozen=True)
class Texts:
    """Of the task, as the teacher's tokenizer cuts them."""

    teacher: Checkpoint
    train: Dataset
    rows: list[NDArray[np.int32]]
    dev_rows: list[NDArray[np.int32]]
    gold: NDArray[np.int64]

    def cut(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Token ids."""
        return Tokenizer(self.teacher.tokenizer, max_tokens=128, pad_token_id=0).encode(texts)


def main() -> None:
    """Measure what is not yet there."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True, help="folder with clinc150/")
    arguments.add_argument("--models", type=Path, required=True, help="folder with the teachers")
    given = arguments.parse_args()
    kept: dict[str, Any] = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    rows = {Cell(row["by"], row["reconstruct"], row["distil"]): row for row in kept.get("rows", ())}
    texts = _texts(given.data / "clinc150", given.models / "clinc150-teacher")
    for cell in cells():
        if cell not in rows:
            rows[cell] = measured(cell, texts)
            print(rows[cell], flush=True)
            _write(rows)


def cells() -> Iterator[Cell]:
    """In the order of the table."""
    for by in SCORES:
        for reconstruct in (False, True):
            yield from (Cell(by, reconstruct, distil) for distil in ("no", "states"))
    yield from (Cell("surgeon", True, distil) for distil in ("logits", "augment", "gradual"))


def measured(cell: Cell, texts: Texts) -> dict[str, Any]:
    """Compress as the cell says, and score on the dev texts."""
    started = time.monotonic()
    first = MACS**0.5 if cell.distil == "gradual" else MACS
    model, layers = _pruned(texts.teacher.model, cell, first, texts)
    config = Distill(epochs=EPOCHS, lr=LR, batch=64, dropout=0.0, embeddings=False)
    if cell.distil == "gradual":
        half = _with_epochs(config, EPOCHS / 2)
        model, _ = distill(model, texts.teacher.model, half, texts.rows, texts.rows, layers)
        model, again = _pruned(model, cell, MACS / first, texts)
        model, _ = distill(model, texts.teacher.model, half, texts.rows, texts.rows, again)
    elif cell.distil != "no":
        rows = texts.rows
        if cell.distil == "augment":
            words, teacher = list(texts.train.texts), texts.teacher
            rows = rows + texts.cut(augmented(teacher.model, teacher.tokenizer, words, AUGMENT, seed=0))
            config = _with_epochs(config, EPOCHS / (1 + AUGMENT))
        config = config if cell.distil != "logits" else Distill(**{**to_dict(config), "hidden": 0.0})
        model, _ = distill(model, texts.teacher.model, config, rows, rows, layers)
    value = accuracy(reference(model, texts.dev_rows), texts.gold).value
    return {**asdict(cell), "accuracy": value, "seconds": round(time.monotonic() - started)}


def _with_epochs(config: Distill, epochs: float) -> Distill:
    """The same for so many passes."""
    return Distill(**{**to_dict(config), "epochs": epochs})


def _pruned(model: Encoder, cell: Cell, macs: float, texts: Texts) -> tuple[Encoder, tuple[int, ...]]:
    off = patch("edgelm.compress.prune.reconstruct", lambda *_, **__: None)
    with nullcontext() if cell.reconstruct else off:
        config = Prune(macs=macs, by=cell.by, multiple_of=MULTIPLE)
        pruned, report = prune(model, config, texts.rows, texts.train.gold)
    return pruned, report.layers


def _texts(folder: Path, model: Path) -> Texts:
    teacher = checkpoint.read(model)
    train, dev = (data.read(folder / f"{part}.jsonl", teacher.model.config.labels) for part in ("train", "dev"))
    assert dev.gold is not None
    found = Texts(teacher, train, [], [], dev.gold)
    return replace(found, rows=found.cut(list(train.texts)), dev_rows=found.cut(list(dev.texts)))


def _write(rows: dict[Cell, dict[str, Any]]) -> None:
    settings = {"macs": MACS, "multiple_of": MULTIPLE, "epochs": EPOCHS, "lr": LR, "augment": AUGMENT}
    found = [rows[cell] for cell in cells() if cell in rows]
    content = {"schema": "edgelm.bench-ablation/1", "machine": to_dict(machine()), "settings": settings, "rows": found}
    with staged(OUT) as staging:
        staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
