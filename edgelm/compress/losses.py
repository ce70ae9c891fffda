"""What a student is trained towards: the original's answers, computed once, and the distance from them.

The loss is the divergence of the softened logits [Hinton 2015, "Distilling the Knowledge in a Neural Network"] plus
the relative squared distance of the hidden states of every token after every layer [TinyBERT, Jiao 2020, eq. 8; the
widths are the same, so nothing is projected]. Where the student's tokenizer cuts a text into another number of pieces
than the original's, only [CLS] can be compared; after the last layer it is all there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgelm.compress.memory import fitting
from edgelm.data import by_length
from edgelm.errors import CheckpointError
from edgelm.model import Encoder
from edgelm.recipe import Distill

__all__ = ["Answers", "States", "answers", "batch_fitting", "loss"]

Rows = Sequence[NDArray[np.int32]]


@dataclass(frozen=True)
class States:
    """The original's hidden states in one place, in the rows that the student has there, one text after the other.

    Attributes:
        first: where a text's rows begin: int64, shape (texts,).
        values: bfloat16, which halves what they take, shape (rows of all texts, dim).
    """

    first: Tensor
    values: Tensor


@dataclass(frozen=True)
class Answers:
    """Of the original, to texts of any lengths; on the CPU, wherever it was run.

    Attributes:
        logits: float32, shape (texts, classes).
        states: what the student's are compared with: after the embeddings, and after each of its layers but the last.
            None where the loss has no use for them.
        last: [CLS] after the last layer, float32, shape (texts, dim).
        aligned: whether both tokenizers cut the text into as many pieces: bool, shape (texts,).
    """

    logits: Tensor
    states: tuple[States, ...] | None
    last: Tensor
    aligned: Tensor


@torch.no_grad()
def answers(
    teacher: Encoder,
    rows: Rows,
    teacher_rows: Rows,
    layers: tuple[int, ...],
    spacing: tuple[int, ...],
    config: Distill,
) -> Answers:
    """Run the original once over all texts.

    A student layer answers for its own teacher layer and for the dropped ones after it (see ``reconstruct``).

    Args:
        teacher: the original.
        rows: token ids of the texts, as the student's tokenizer cuts them.
        teacher_rows: of the same texts, as the original's does.
        layers: for each of the student's layers, its index in the teacher.
        spacing: the student's, see ``EncoderConfig.spacing``.
        config: texts a batch, and whether the states are needed.

    Raises:
        CheckpointError: an answer is not finite.
        RecipeError: a batch, or all answers, do not fit into memory.
    """
    device = teacher.embeddings.word.weight.device
    ends = [0, *layers[1:]]  # the state after the embeddings, and before each kept layer but the first
    lengths = torch.tensor([len(row) for row in teacher_rows])
    with fitting(f"distill: the hidden states of {len(rows)} texts", "give fewer texts, or set distill.hidden = 0"):
        logits = torch.zeros(len(rows), len(teacher.config.labels))
        last = torch.zeros(len(rows), teacher.config.dim)
        counts = [(lengths + apart - 1) // apart for apart in spacing[: len(ends)]]
        states = tuple(_room(count, teacher.config.dim) for count in counts) if config.hidden else None
    for batch in by_length(teacher_rows, config.batch):
        with batch_fitting(len(batch), len(teacher_rows[batch[0]])):
            input_ids = torch.from_numpy(np.stack([teacher_rows[i] for i in batch])).long().to(device)
            mask = torch.ones_like(input_ids)
            hidden = list(teacher.hidden_states(input_ids, mask))
            logits[batch], last[batch] = teacher.head(hidden[-1], mask).cpu(), hidden[-1][:, 0].cpu()
            if states is not None:
                for end, apart, kept in zip(ends, spacing, states, strict=False):
                    taken = hidden[end][:, ::apart]
                    kept.values[kept.first[batch][:, None] + torch.arange(taken.shape[1])] = taken.bfloat16().cpu()
    if not logits.isfinite().all() or not last.isfinite().all():
        raise CheckpointError("distill: expected numbers as answers of the original, found NaN or infinity: mend it")
    aligned = torch.tensor([len(ours) == len(theirs) for ours, theirs in zip(rows, teacher_rows, strict=True)])
    return Answers(logits, states, last, aligned)


def _room(rows: Tensor, dim: int) -> States:
    """For so many rows of each text."""
    return States(rows.cumsum(0) - rows, torch.zeros(int(rows.sum()), dim, dtype=torch.bfloat16))


def batch_fitting(texts: int, tokens: int) -> AbstractContextManager[None]:
    """See ``memory.fitting``: of one batch."""
    remedy = f"set distill.batch below {texts}, or the longest of export.lengths below {tokens}"
    return fitting(f"distill: {texts} texts of {tokens} tokens", remedy)


def loss(
    student: Encoder, input_ids: Tensor, texts: NDArray[np.int64], truth: Answers, config: Distill, *, bf16: bool
) -> Tensor:
    """The mean loss of one batch.

    Args:
        student: the compressed encoder.
        input_ids: int64, shape (batch, tokens), without padding, where the student is.
        texts: which texts these are: int64, shape (batch,).
        truth: the original's answers to all texts.
        config: temperature, and the weight of the hidden states.
        bf16: compute matrix products in bfloat16.

    Returns:
        Float32, a scalar, with its graph.
    """
    device = input_ids.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        mask = torch.ones_like(input_ids)
        hidden = list(student.hidden_states(input_ids, mask))
        logits = student.head(hidden[-1], mask)
    soft = functional.log_softmax(truth.logits[texts].to(device) / config.temperature, -1)
    ours = functional.log_softmax(logits.float() / config.temperature, -1)
    divergence = functional.kl_div(ours, soft, reduction="batchmean", log_target=True) * config.temperature**2
    if truth.states is None:
        return divergence
    last = _distance(hidden[-1][:, 0].float(), truth.last[texts].to(device)).mean()
    return divergence + config.hidden * (_states(hidden[:-1], texts, truth) + last) / len(hidden)


def _states(hidden: Sequence[Tensor], texts: NDArray[np.int64], truth: Answers) -> Tensor:
    """The distance of the states before the last one, summed over layers."""
    assert truth.states is not None
    return torch.stack(
        [_apart(*pair, texts, truth.aligned[texts]) for pair in zip(hidden, truth.states, strict=True)]
    ).sum()


def _apart(ours: Tensor, theirs: States, texts: NDArray[np.int64], aligned: Tensor) -> Tensor:
    """The distance in one place: the mean over the rows that compare."""
    rows = torch.arange(ours.shape[1])
    compare = aligned[:, None] | (rows == 0)
    where = (theirs.first[texts][:, None] + rows)[compare]
    return _distance(ours[compare.to(ours.device)].float(), theirs.values[where].to(ours.device).float()).mean()


def _distance(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared, relative to the size of theirs; over the last axis."""
    return (ours - theirs).square().mean(-1) / theirs.square().mean(-1)
