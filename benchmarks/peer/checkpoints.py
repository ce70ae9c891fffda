"""The checkpoints that every peer starts from, in fp32."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedModel

from edgelm.bundle import staged_dir

__all__ = ["base", "compressed", "plain"]


def plain(teacher: Path, out: Path) -> Path:
    """A checkpoint with its numbers in fp32, as a trainer leaves them: some peers would compute in fp16 else."""
    if not out.exists():
        _save(DistilBertForSequenceClassification.from_pretrained(teacher, dtype=torch.float32), teacher, out)
    return out


def base(teacher: Path, out: Path) -> Path:
    """DistilBERT of full size, 66.4 M parameters of random value beside the head; with the tokenizer of another."""
    if not out.exists():
        torch.manual_seed(0)
        shape = DistilBertConfig(id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1})
        _save(DistilBertForSequenceClassification(shape), teacher, out)
    return out


def compressed(teacher: Path, train: Path, recipe: Path, out: Path) -> Path:
    """What a recipe without training makes of a checkpoint; minutes."""
    if not out.exists():
        command = [sys.executable, "-m", "edgelm", "compress", str(teacher), "--recipe", str(recipe)]
        subprocess.run([*command, "--data", str(train), "--out", str(out)], check=True)
    return out


def _save(module: PreTrainedModel, teacher: Path, out: Path) -> None:
    with staged_dir(out) as staging:
        module.save_pretrained(staging)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(teacher / name, staging / name)
