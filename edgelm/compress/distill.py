"""Distillation: train the compressed model to answer as the original does.

What it is trained towards is in ``losses``. Batches hold texts of one length, so nothing is padded. The order of the
batches depends on the seed and the epoch alone, and a run that was killed goes on from its ``state`` to the very
weights that it would have had.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgelm.compress.losses import Answers, answers, batch_fitting, loss
from edgelm.compress.state import State
from edgelm.compress.world import World, world
from edgelm.data import by_length
from edgelm.devices.machine import machine
from edgelm.errors import RecipeError
from edgelm.model import Encoder
from edgelm.progress import Advance
from edgelm.recipe import Distill
from edgelm.tasks import accuracy

__all__ = ["Dev", "DistillReport", "distill", "steps"]

Rows = Sequence[NDArray[np.int32]]
_BF16 = {"amx_bf16", "avx512_bf16", "bf16"}


@dataclass(frozen=True)
class Dev:
    """Held-out texts by which the best weights are known.

    Attributes:
        rows: token ids, as the student's tokenizer cuts them.
        gold: int64, shape (texts,), class indices.
    """

    rows: Rows
    gold: NDArray[np.int64]


@dataclass(frozen=True)
class DistillReport:
    """What distillation did.

    Attributes:
        steps: of the optimizer that were taken.
        texts: that it was trained on, each once an epoch.
        loss_start: mean loss of the first tenth of the steps.
        loss_end: mean loss of the last tenth.
        best_step: after which the student was best on the dev texts, and whose weights it has; None without them.
        best_accuracy: on the dev texts, then.
    """

    steps: int
    texts: int
    loss_start: float
    loss_end: float
    best_step: int | None = None
    best_accuracy: float | None = None


def distill(
    student: Encoder,
    teacher: Encoder,
    config: Distill,
    rows: Rows,
    teacher_rows: Rows,
    layers: tuple[int, ...],
    *,
    dev: Dev | None = None,
    state: State | None = None,
    after_step: Callable[[], None] | None = None,
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
        dev: with ``config.patience``, and only then: the student is scored after every epoch, the best weights are
            kept, and so many scores in a row that are not better end it.
        state: where to go on from after a kill, and where to write how far it is.
        after_step: called after each step of the optimizer; it may change the student's weights.
        progress: called with the number of steps done since the last call.

    Raises:
        RecipeError: the loss is not finite, or a batch does not fit into memory.
        CheckpointError: the teacher's answers are not finite.
    """
    if (dev is None) != (config.patience is None):
        raise ValueError("dev and config.patience go together: expected both or neither")
    here = world()
    truth = answers(teacher.to(here.device), rows, teacher_rows, layers, student.config.spacing(), config)
    here.same_(student.to(here.device))
    student.train().requires_grad_(True).set_dropout(config.dropout)
    student.embeddings.word.requires_grad_(config.embeddings)
    torch.manual_seed(config.seed + here.rank)
    training = _Training(student, config, steps(rows, config), dev, here)
    if state and (kept := state.read()):
        training.load(kept)
        logging.getLogger("edgelm").warning(
            "%s: going on from step %d of %d", state.path, len(training.losses), training.total
        )
    if progress:
        progress(len(training.losses))
    while not training.done():
        for batch in training.rest_of_epoch(rows):
            training.step(rows, batch, truth, state if here.first else None)
            if after_step:
                after_step()
            if progress:
                progress(1)
        training.score()
    teacher.cpu()
    return training.finish(), training.report(len(rows))


def steps(rows: Rows, config: Distill) -> int:
    """How many optimizer steps the config makes of these texts, unless it is ended early: at least 1."""
    return max(1, round(config.epochs * _per_epoch(rows, config)))


@dataclass(frozen=True)
class _Best:
    """The best student so far."""

    accuracy: float
    step: int
    weights: dict[str, Tensor]


class _Training:
    """A student, its optimizer, and all else that changes from step to step."""

    def __init__(self, student: Encoder, config: Distill, total: int, dev: Dev | None, here: World) -> None:
        self.student, self.config, self.total, self.dev, self.here = student, config, total, dev, here
        self.optimizer = torch.optim.AdamW(_groups(student), lr=config.lr, fused=True)
        # on a CPU without it, it is emulated, several times slower than float32
        self.bf16 = here.device.type != "cpu" or not _BF16.isdisjoint(machine().isa)
        self.losses: list[float] = []
        self.best: _Best | None = None
        self.behind = 0  # scores since the best

    def done(self) -> bool:
        """Whether all steps were taken, or the last scores were not better."""
        return len(self.losses) == self.total or self.behind == self.config.patience

    def rest_of_epoch(self, rows: Rows) -> list[NDArray[np.int64]]:
        """This process's batches that are left of the epoch, in an order that depends on seed and epoch alone."""
        epoch, done = divmod(len(self.losses), _per_epoch(rows, self.config))
        random = np.random.default_rng((self.config.seed, epoch))
        batches = list(by_length(rows, self.config.batch, random.permutation(len(rows))))
        shuffled = random.permutation(len(batches))
        shares = np.resize(shuffled, (_per_epoch(rows, self.config), self.here.size))  # the last step begins anew
        return [batches[index] for index in shares[done:, self.here.rank][: self.total - len(self.losses)]]

    def step(self, rows: Rows, batch: NDArray[np.int64], truth: Answers, state: State | None) -> None:
        """One step of the optimizer; if it is time, the state before it is written, now known to have a finite loss."""
        random = torch.get_rng_state()
        value, norm = self._gradients(rows, batch, truth)
        if not math.isfinite(value) or not math.isfinite(norm):
            what = f"the loss is {value}" if not math.isfinite(value) else f"the gradient's norm is {norm}"
            where = f"step {len(self.losses) + 1} of {self.total}"
            raise RecipeError(f"distill: {what} at {where}: expected a number; set distill.lr below {self.config.lr:g}")
        if state and state.due():
            state.write(self.state(random))
        rate = self.config.lr * _rate(len(self.losses), self.total, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.losses.append(value)

    def score(self) -> None:
        """Score the student on the dev texts, if there are any, and keep its weights if none were better."""
        if self.dev is None:
            return
        found = _accuracy(self.student.eval(), self.dev, self.config.batch)
        self.student.train()
        if self.best is None or found > self.best.accuracy:
            weights = {name: tensor.clone() for name, tensor in self.student.state_dict().items()}
            self.best, self.behind = _Best(found, len(self.losses), weights), 0
        else:
            self.behind += 1

    def state(self, random: Tensor) -> dict[str, Any]:
        """All that ``load`` needs to go on, as tensors, numbers, lists and dicts."""
        best = vars(self.best) if self.best else None
        return {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random,
            "losses": self.losses,
            "best": best,
            "behind": self.behind,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.losses = state["losses"]
        self.best = _Best(**state["best"]) if state["best"] else None
        self.behind = state["behind"]

    def finish(self) -> Encoder:
        """The student with its best weights, ready for use."""
        if self.best:
            self.student.load_state_dict(self.best.weights)
        self.student.set_dropout(0.0)
        return self.student.cpu().eval().requires_grad_(False)

    def report(self, texts: int) -> DistillReport:
        """What was done."""
        tenth = max(1, len(self.losses) // 10)
        ends = float(np.mean(self.losses[:tenth])), float(np.mean(self.losses[-tenth:]))
        best = (self.best.step, self.best.accuracy) if self.best else (None, None)
        return DistillReport(len(self.losses), texts, *ends, *best)

    def _gradients(self, rows: Rows, batch: NDArray[np.int64], truth: Answers) -> tuple[float, float]:
        """Leave the clipped gradients of a batch's loss; the loss, and their norm before."""
        self.optimizer.zero_grad()
        with batch_fitting(len(batch), len(rows[batch[0]])):
            input_ids = torch.from_numpy(np.stack([rows[i] for i in batch])).long().to(self.here.device)
            found = loss(self.student, input_ids, batch, truth, self.config, bf16=self.bf16)
            found.backward()  # type: ignore[no-untyped-call]
        self.here.mean_(self.student)
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        return self.here.mean(found.item()), norm.item()


@torch.no_grad()
def _accuracy(student: Encoder, dev: Dev, size: int) -> float:
    """The share of the dev texts that the student answers rightly."""
    device = student.embeddings.word.weight.device
    logits = torch.zeros(len(dev.rows), len(student.config.labels))
    for batch in by_length(dev.rows, size):
        input_ids = torch.from_numpy(np.stack([dev.rows[i] for i in batch])).long().to(device)
        logits[batch] = student(input_ids, torch.ones_like(input_ids)).cpu()
    return accuracy(logits.numpy(), dev.gold).value


def _per_epoch(rows: Rows, config: Distill) -> int:
    """Steps of one pass over the texts: each takes a batch a process."""
    return math.ceil(sum(1 for _ in by_length(rows, config.batch)) / world().size)


def _groups(model: Encoder) -> list[dict[str, object]]:
    """Weight decay acts on matrices alone, not on biases, norms and embeddings."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim > 1 and "embeddings" not in name]
    others = [p for name, p in trained if p.ndim == 1 or "embeddings" in name]
    return [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]


def _rate(step: int, total: int, warmup: float) -> float:
    """Linear warm-up, then cosine decay to zero; a factor of the peak learning rate."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, total - rising))))
