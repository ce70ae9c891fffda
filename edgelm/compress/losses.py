"""What a student is trained towards: the original's answers, computed once, and the distance from them.

The loss is the divergence of the softened logits [Hinton 2015, "Distilling the Knowledge in a Neural Network"] plus
the relative squared distance of the [CLS] hidden state after every layer (in the spirit of [TinyBERT, Jiao 2020]).
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

__all__ = ["Answers", "answers", "batch_fitting", "loss"]


@dataclass(frozen=True)
class Answers:
    """Of the original, float32.

    Attributes:
        logits: shape (texts, classes).
        states: [CLS] states, shape (texts, student layers + 1, dim); None where the loss has no use for them.
    """

    logits: Tensor
    states: Tensor | None

    def of(self, batch: NDArray[np.int64]) -> Answers:
        """The answers to some of the texts."""
        return Answers(self.logits[batch], None if self.states is None else self.states[batch])


@torch.no_grad()
def answers(teacher: Encoder, rows: Sequence[NDArray[np.int32]], layers: tuple[int, ...], config: Distill) -> Answers:
    """Run the original once over all texts.

    A student layer answers for its own teacher layer and for the dropped ones after it (see ``reconstruct``).

    Args:
        teacher: the original.
        rows: token ids of the texts.
        layers: for each of the student's layers, its index in the teacher.
        config: texts a batch, and whether the states are needed.

    Raises:
        CheckpointError: an answer is not finite.
        RecipeError: a batch, or all answers, do not fit into memory.
    """
    ends = [0, *(following for following in (*layers[1:], len(teacher.layers)))]
    with fitting(f"distill: the hidden states of {len(rows)} texts", "give fewer texts, or set distill.hidden = 0"):
        logits = torch.zeros(len(rows), len(teacher.config.labels))
        states = torch.zeros(len(rows), len(ends), teacher.config.dim) if config.hidden else None
    for batch in by_length(rows, config.batch):
        with batch_fitting(len(batch), len(rows[batch[0]])):
            input_ids = torch.from_numpy(np.stack([rows[i] for i in batch])).long()
            hidden = list(teacher.hidden_states(input_ids, torch.ones_like(input_ids)))
            logits[batch] = teacher.classify(hidden[-1])
            if states is not None:
                states[batch] = torch.stack([hidden[end][:, 0] for end in ends], 1)
    if not logits.isfinite().all() or (states is not None and not states.isfinite().all()):
        raise CheckpointError("distill: expected numbers as answers of the original, found NaN or infinity: mend it")
    return Answers(logits, states)


def batch_fitting(texts: int, tokens: int) -> AbstractContextManager[None]:
    """See ``memory.fitting``: of one batch."""
    remedy = f"set distill.batch below {texts}, or the longest of export.lengths below {tokens}"
    return fitting(f"distill: {texts} texts of {tokens} tokens", remedy)


def loss(student: Encoder, input_ids: Tensor, truth: Answers, config: Distill, *, bf16: bool) -> Tensor:
    """The mean loss of one batch.

    Args:
        student: the compressed encoder.
        input_ids: int64, shape (batch, tokens), without padding.
        truth: the original's answers to these texts alone.
        config: temperature, and the weight of the hidden states.
        bf16: compute matrix products in bfloat16.

    Returns:
        Float32, a scalar, with its graph.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        hidden = list(student.hidden_states(input_ids, torch.ones_like(input_ids)))
        logits = student.classify(hidden[-1])
    soft = functional.log_softmax(truth.logits / config.temperature, -1)
    ours = functional.log_softmax(logits.float() / config.temperature, -1)
    divergence = functional.kl_div(ours, soft, reduction="batchmean", log_target=True) * config.temperature**2
    if truth.states is None:
        return divergence
    states = torch.stack([h[:, 0] for h in hidden], 1).float()
    distance = (states - truth.states).square().mean(-1) / truth.states.square().mean(-1)
    return divergence + config.hidden * distance.mean()
