"""Distillation: train the compressed model to answer as the original does.

The loss is the divergence of the softened logits [Hinton 2015, "Distilling the Knowledge in a Neural Network"] plus
the relative squared distance of the [CLS] hidden state after every layer (in the spirit of [TinyBERT, Jiao 2020]).
The original's answers are computed once. Batches hold texts of one length, so nothing is padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgelm.data import by_length
from edgelm.devices.machine import machine
from edgelm.model import Encoder
from edgelm.progress import Advance
from edgelm.recipe import Distill

__all__ = ["DistillReport", "distill", "steps"]

Rows = Sequence[NDArray[np.int32]]
_BF16 = {"amx_bf16", "avx512_bf16", "bf16"}


@dataclass(frozen=True)
class DistillReport:
    """What distillation did.

    Attributes:
        steps: of the optimizer.
        texts: that it was trained on, each once an epoch.
        loss_start: mean loss of the first tenth of the steps.
        loss_end: mean loss of the last tenth.
    """

    steps: int
    texts: int
    loss_start: float
    loss_end: float


def distill(
    student: Encoder,
    teacher: Encoder,
    config: Distill,
    rows: Rows,
    teacher_rows: Rows,
    layers: tuple[int, ...],
    *,
    progress: Advance | None = None,
) -> tuple[Encoder, DistillReport]:
    """Train the student, in place.

    Args:
        student: the compressed encoder.
        teacher: the original.
        config: how long, how fast, and the seed that makes runs repeat on one machine.
        rows: token ids of the texts, as the student's tokenizer cuts them.
        teacher_rows: of the same texts, as the teacher's does.
        layers: for each of the student's layers, its index in the teacher.
        progress: called after every step.
    """
    torch.manual_seed(config.seed)
    random = np.random.default_rng(config.seed)
    truth = _answers(teacher, teacher_rows, layers)
    student.train().requires_grad_(True).set_dropout(config.dropout)
    optimizer = torch.optim.AdamW(_groups(student), lr=config.lr, fused=True)
    total = steps(rows, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total, config.warmup))
    fast_bf16 = not _BF16.isdisjoint(machine().isa)  # elsewhere it is emulated, several times slower than float32
    losses: list[float] = []
    while len(losses) < total:
        batches = list(by_length(rows, config.batch, random.permutation(len(rows))))
        for index in random.permutation(len(batches))[: total - len(losses)]:
            batch = batches[index]
            loss = _loss(student, rows, batch, truth, config, fast_bf16=fast_bf16)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if progress:
                progress(1)
    student.set_dropout(0.0)
    student.eval().requires_grad_(False)
    tenth = max(1, total // 10)
    report = DistillReport(total, len(rows), float(np.mean(losses[:tenth])), float(np.mean(losses[-tenth:])))
    return student, report


def steps(rows: Rows, config: Distill) -> int:
    """How many optimizer steps the config makes of these texts: at least 1."""
    return max(1, round(config.epochs * sum(1 for _ in by_length(rows, config.batch))))


@dataclass(frozen=True)
class _Answers:
    """Of the teacher: logits (texts, classes), and [CLS] states (texts, student layers + 1, dim), float32."""

    logits: Tensor
    states: Tensor


@torch.no_grad()
def _answers(teacher: Encoder, rows: Rows, layers: tuple[int, ...]) -> _Answers:
    """Run the teacher once over all texts.

    A student layer answers for its own teacher layer and for the dropped ones after it (see ``reconstruct``).
    """
    ends = [0, *(following for following in (*layers[1:], len(teacher.layers)))]
    logits = torch.zeros(len(rows), len(teacher.config.labels))
    states = torch.zeros(len(rows), len(ends), teacher.config.dim)
    for batch in by_length(rows, 64):
        input_ids = torch.from_numpy(np.stack([rows[i] for i in batch])).long()
        hidden = list(teacher.hidden_states(input_ids, torch.ones_like(input_ids)))
        logits[batch] = teacher.classify(hidden[-1])
        states[batch] = torch.stack([hidden[end][:, 0] for end in ends], 1)
    return _Answers(logits, states)


def _loss(
    student: Encoder, rows: Rows, batch: NDArray[np.int64], truth: _Answers, config: Distill, *, fast_bf16: bool
) -> Tensor:
    """The mean loss of one batch, a scalar."""
    input_ids = torch.from_numpy(np.stack([rows[i] for i in batch])).long()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast_bf16):
        hidden = list(student.hidden_states(input_ids, torch.ones_like(input_ids)))
        logits = student.classify(hidden[-1])
    soft = functional.log_softmax(truth.logits[batch] / config.temperature, -1)
    ours = functional.log_softmax(logits.float() / config.temperature, -1)
    loss = functional.kl_div(ours, soft, reduction="batchmean", log_target=True) * config.temperature**2
    if not config.hidden:
        return loss
    states = torch.stack([h[:, 0] for h in hidden], 1).float()
    target = truth.states[batch]
    return loss + config.hidden * ((states - target).square().mean(-1) / target.square().mean(-1)).mean()


def _groups(model: Encoder) -> list[dict[str, object]]:
    """Weight decay acts on matrices alone, not on biases, norms and embeddings."""
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and "embeddings" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "embeddings" in name]
    return [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]


def _rate(step: int, total: int, warmup: float) -> float:
    """Linear warm-up, then cosine decay to zero; a factor of the peak learning rate."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, total - rising))))
