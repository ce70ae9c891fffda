"""Proof that an artifact does what the module did: differences of logits, labels and distributions, and the gate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch

from edgelm import tasks
from edgelm.errors import DataError, GateFailed
from edgelm.manifest import Parity
from edgelm.model import Network
from edgelm.recipe import Gate
from edgelm.runtimes import Ids, Logits, Session
from edgelm.tasks import Task
from edgelm.text import padded

__all__ = ["HOSTILE_TEXTS", "check", "enforce", "outputs", "reference", "task_of"]

HOSTILE_TEXTS = (
    "",  # nothing but [CLS] [SEP]
    "a",  # one token
    " \t\r\n\u00a0\u3000",  # nothing but white space
    "\x00\x1b[31m\ufeff\u200b\u202e",  # control and invisible characters
    "[CLS] [SEP] [PAD] [MASK] [UNK]",  # the tokenizer's own marks, as text
    "word " * 600,  # longer than any limit
    "x" * 5000,  # one word, longer than any limit
    "\N{GRINNING FACE}" * 300,
    "مرحبا שלום 你好 こんにちは",  # right to left, and without spaces
    "e\u0301\u0327\u0328" * 40 + "\U0001d518" * 4,  # stacked accents, and letters outside the basic plane
)
"""Texts that have broken other tools. Whoever calls ``check`` tokenizes them, and cuts them to the model's limit."""

_BATCH = 8


def task_of(model: Network) -> Task:
    """What a module's outputs mean."""
    shape = model.config
    return tasks.of(shape.task, labels=shape.labels, multi_label=shape.multi_label, mask_token_id=shape.mask_token_id)


def reference(model: Network, rows: Sequence[Ids]) -> Logits:
    """A text classifier's logits, float32, shape (rows, classes); see ``outputs``."""
    return np.stack(outputs(model, rows))


def outputs(model: Network, rows: Sequence[Ids]) -> list[Logits]:
    """The module's own output for each row, which every variant is compared with; compute them once.

    Args:
        model: the module; it runs in evaluation mode.
        rows: token ids without padding, int32, shape (tokens,) each.

    Returns:
        float32; of each row the head's output without its batch axis.
    """
    found: list[Logits] = [np.empty(0, np.float32)] * len(rows)
    alike = defaultdict[int, list[int]](list)  # rows of one length make a batch without padding
    for index, row in enumerate(rows):
        alike[len(row)].append(index)
    training = model.training
    model.eval()
    with torch.no_grad():
        for indices in alike.values():
            for start in range(0, len(indices), _BATCH):
                chosen = indices[start : start + _BATCH]
                ids = torch.from_numpy(np.stack([rows[index] for index in chosen]))
                for index, output in zip(chosen, model(ids, torch.ones_like(ids)).numpy(), strict=True):
                    found[index] = output
    model.train(training)
    return found


def check(
    model: Network,
    session: Session,
    rows: Sequence[Ids],
    hostile: Sequence[Ids],
    *,
    expected: Sequence[Logits] | None = None,
    advance: Callable[[int], None] = lambda units: None,
) -> Parity:
    """Compare an artifact with the module it was exported from.

    Every row is run alone, without padding, and once more in a batch of up to 8 with its neighbours, padded to the
    longest, so that the attention mask is put to the test; the module always runs without padding. The largest
    difference and the divergence are those of the worse of the two runs; agreement is that of the rows run alone,
    since dynamic quantization takes its ranges from the whole batch.

    Args:
        model: the module.
        session: the artifact, loaded.
        rows: token ids of real texts, without padding, int32, shape (tokens,) each; best of mixed lengths.
        hostile: the same of ``HOSTILE_TEXTS``.
        expected: ``outputs(model, rows)``, where it is known.
        advance: called with the number of rows run since the last call; every row is run twice.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("parity is measured on texts: expected at least one, found none")
    task = task_of(model)
    expected = outputs(model, rows) if expected is None else expected
    unpadded, padded = _runs(session, rows, model.config.pad_token_id, advance)
    awkward = _runs(session, hostile, model.config.pad_token_id, advance) if hostile else ((), ())
    truth = outputs(model, hostile)
    return Parity(
        rows=len(rows),
        max_abs_diff=max(_difference(expected, unpadded), _difference(expected, padded)),
        agreement=tasks.agreement(task, [expected], [unpadded]),
        kl=max(_divergence(task, expected, unpadded), _divergence(task, expected, padded)),
        hostile_rows=len(hostile),
        hostile_max_abs_diff=max((_difference(truth, found) for found in awkward), default=0.0),
    )


def enforce(parity: Parity, gate: Gate, name: str) -> None:
    """Fail unless every figure is within the gate.

    Args:
        parity: what was measured.
        gate: what is allowed.
        name: of the variant, for the error: ``onnx int8-dynamic``.

    Raises:
        GateFailed: a figure is outside, or a logit was not a finite number; all such figures are named.
    """
    texts, hostile = f"on {parity.rows} texts", f"on {parity.hostile_rows} hostile inputs"
    figures = (
        ("largest difference of a logit", parity.max_abs_diff, texts, gate.max_abs_diff),
        ("largest difference of a logit", parity.hostile_max_abs_diff, hostile, gate.max_abs_diff),
        ("mean divergence in nats", parity.kl, texts, gate.kl),
    )
    wrong = [f"{what} {where} is not a finite number" for what, value, where, _ in figures if not math.isfinite(value)]
    wrong += [
        f"{what} {value:.4g} {where} is above the gate's {most:g}"
        for what, value, where, most in figures
        if math.isfinite(value) and value > most
    ]
    if not parity.agreement >= gate.agreement:
        wrong.append(f"agreement {parity.agreement:.4g} {texts} is below the gate's {gate.agreement:g}")
    if wrong:
        raise GateFailed(f"{name}: {'; '.join(wrong)}")


def _runs(
    session: Session, rows: Sequence[Ids], pad_token_id: int, advance: Callable[[int], None]
) -> tuple[list[Logits], list[Logits]]:
    """Outputs of the rows run alone, and run in padded batches, without what belongs to the padding."""
    alone, together = list[Logits](), list[Logits]()
    for row in rows:
        alone.append(session.run(row[None], np.ones_like(row)[None])[0])
        advance(1)
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        found = session.run(*padded(batch, pad_token_id))
        together += [one[: len(row)] if found.ndim == 3 else one for one, row in zip(found, batch, strict=True)]
        advance(len(batch))
    return alone, together


def _difference(expected: Sequence[Logits], found: Sequence[Logits]) -> float:
    """Largest absolute difference; infinite when something is not a finite number."""
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            return math.inf
        worst = max(worst, float(np.abs(one.astype(np.float64) - other).max()))
    return worst


def _divergence(task: Task, expected: Sequence[Logits], found: Sequence[Logits]) -> float:
    """Mean over all decisions of sum p * log(p / q), in nats; infinite when something is not a finite number."""
    total, decisions = 0.0, 0
    for one, other in zip(expected, found, strict=True):
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            return math.inf
        log_p, log_q = (tasks.log_softmax(task.choices(output)) for output in (one, other))
        total += float((np.exp(log_p) * (log_p - log_q)).sum())
        decisions += len(log_p)
    return max(0.0, total / decisions) if decisions else 0.0  # rounding may leave -1e-17
