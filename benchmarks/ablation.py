"""Which part of compression buys what: importance x reconstruction x distillation, on CLINC150 at a third of the MACs.

``make bench-ablation DATA=FOLDER MODELS=FOLDER`` writes benchmarks/ablation.json, one row after the other; a run that
was ended goes on where it was. benchmarks/pareto.py puts the table into docs/compression.md.
"""

from __future__ import annotations

import argparse
import copy
import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
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


KINDS = ("no", "states", "logits", "augment", "gradual")
"""Of distillation: none; as the product does it; by logits alone; with new texts; half of the steps at the square root
of the MACs, then pruned again. The last three for the product's own pruning alone."""


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
    rows = {(row["by"], row["fitted"], row["distil"]): row["accuracy"] for row in kept.get("rows", ())}
    texts = _texts(given.data / "clinc150", given.models / "clinc150-teacher")
    for by in SCORES:
        for fitted in (False, True):
            kinds = KINDS if (by, fitted) == ("surgeon", True) else KINDS[:2]
            if all((by, fitted, kind) in rows for kind in kinds):
                continue
            model, layers = _pruned(texts.teacher.model, by, fitted, MACS, texts)
            for kind in kinds:
                done = distilled(copy.deepcopy(model), layers, kind, texts)
                rows[by, fitted, kind] = accuracy(reference(done, texts.dev_rows), texts.gold).value
                print(by, "fitted" if fitted else "removed", kind, f"{rows[by, fitted, kind]:.4f}", flush=True)
                _write(rows)


def distilled(model: Encoder, layers: tuple[int, ...], kind: str, texts: Texts) -> Encoder:
    """Distil a pruned model in one of the ``KINDS`` of ways, always with as many steps."""
    config = Distill(epochs=EPOCHS, lr=LR, batch=64, dropout=0.0, embeddings=False)
    teacher, rows = texts.teacher, texts.rows
    if kind == "no":
        return model
    if kind == "gradual":
        half = _with(config, epochs=EPOCHS / 2)
        model, layers = _pruned(teacher.model, "surgeon", True, MACS**0.5, texts)
        model, _ = distill(model, teacher.model, half, rows, rows, layers)
        model, layers = _pruned(model, "surgeon", True, MACS**0.5, texts)
        return distill(model, teacher.model, half, rows, rows, layers)[0]
    if kind == "logits":
        config = _with(config, hidden=0.0)
    if kind == "augment":
        new = augmented(teacher.model, teacher.tokenizer, texts.train.texts, AUGMENT, seed=0)
        rows, config = rows + texts.cut(new), _with(config, epochs=EPOCHS / (1 + AUGMENT))
    return distill(model, teacher.model, config, rows, rows, layers)[0]


def _with(config: Distill, **changes: float) -> Distill:
    return msgspec.structs.replace(config, **changes)


def _pruned(model: Encoder, by: Scores, fitted: bool, macs: float, texts: Texts) -> tuple[Encoder, tuple[int, ...]]:
    off = patch("edgelm.compress.prune.reconstruct", lambda *_, **__: None)
    with nullcontext() if fitted else off:
        config = Prune(macs=macs, by=by, multiple_of=MULTIPLE)
        pruned, report = prune(model, config, texts.rows, texts.train.gold)
    return pruned, report.layers


def _texts(folder: Path, model: Path) -> Texts:
    teacher = checkpoint.read(model)
    train, dev = (data.read(folder / f"{part}.jsonl", teacher.model.config.labels) for part in ("train", "dev"))
    assert dev.gold is not None
    found = Texts(teacher, train, [], [], dev.gold)
    return replace(found, rows=found.cut(list(train.texts)), dev_rows=found.cut(list(dev.texts)))


def _write(rows: dict[tuple[str, bool, str], float]) -> None:
    settings = {"macs": MACS, "multiple_of": MULTIPLE, "epochs": EPOCHS, "lr": LR, "augment": AUGMENT, "seed": 0}
    found = [{"by": by, "fitted": fit, "distil": kind, "accuracy": rows[by, fit, kind]} for by, fit, kind in rows]
    content = {"schema": "edgelm.bench-ablation/1", "machine": to_dict(machine()), "settings": settings, "rows": found}
    with staged(OUT) as staging:
        staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
