"""Proof that an artifact does what the module did: differences of logits, labels and distributions, and the gate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from edgelm.errors import DataError, GateFailed
from edgelm.manifest import Parity
from edgelm.model import Encoder, EncoderConfig
from edgelm.recipe import Gate
from edgelm.runtimes import Ids, Logits, Session

__all__ = ["HOSTILE_TEXTS", "Answers", "check", "enforce", "reference"]

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


class Answers(Protocol):
    """A model that is no encoder of ours and answers for itself; see ``edgelm.exporters.foreign``."""

    @property
    def config(self) -> EncoderConfig:
        """Its shape, as far as it is known."""

    def logits(self, input_ids: Ids) -> Logits:
        """Logits of rows of one length, int32, shape (batch, tokens), without padding."""


def reference(model: Encoder | Answers, rows: Sequence[Ids]) -> Logits:
    """The module's own logits, which every variant is compared with; compute them once.

    Args:
        model: the module; an encoder of ours runs in evaluation mode.
        rows: token ids without padding, int32, shape (tokens,) each.

    Returns:
        float32, shape (rows, classes).
    """
    logits = np.empty((len(rows), len(model.config.labels)), np.float32)
    alike = defaultdict[int, list[int]](list)  # rows of one length make a batch without padding
    for index, row in enumerate(rows):
        alike[len(row)].append(index)
    answer = _of_encoder(model) if isinstance(model, Encoder) else model.logits
    for indices in alike.values():
        for start in range(0, len(indices), _BATCH):
            chosen = indices[start : start + _BATCH]
            logits[chosen] = answer(np.stack([rows[index] for index in chosen]))
    return logits


def _of_encoder(model: Encoder) -> Callable[[Ids], Logits]:
    def answer(input_ids: Ids) -> Logits:
        training = model.training
        model.eval()
        ids = torch.from_numpy(input_ids)
        with torch.no_grad():
            found: Logits = model(ids, torch.ones_like(ids)).numpy()
        model.train(training)
        return found

    return answer


def check(
    model: Encoder | Answers,
    session: Session,
    rows: Sequence[Ids],
    hostile: Sequence[Ids],
    *,
    expected: Logits | None = None,
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
        expected: ``reference(model, rows)``, where it is known.
        advance: called with the number of rows run since the last call; every row is run twice.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("parity is measured on texts: expected at least one, found none")
    expected = reference(model, rows) if expected is None else expected
    unpadded, padded = _runs(session, rows, model.config.pad_token_id, advance)
    awkward = _runs(session, hostile, model.config.pad_token_id, advance) if hostile else ()
    truth = reference(model, hostile)
    return Parity(
        rows=len(rows),
        max_abs_diff=max(_difference(expected, unpadded), _difference(expected, padded)),
        agreement=float((expected.argmax(-1) == unpadded.argmax(-1)).mean()),
        kl=max(_divergence(expected, unpadded), _divergence(expected, padded)),
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
) -> tuple[Logits, Logits]:
    """Logits of the rows run alone, and run in padded batches."""
    alone, together = [], []
    for row in rows:
        alone.append(session.run(row[None], np.ones_like(row)[None]))
        advance(1)
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        together.append(session.run(*_padded(batch, pad_token_id)))
        advance(len(batch))
    return np.concatenate(alone), np.concatenate(together)


def _padded(rows: Sequence[Ids], pad_token_id: int) -> tuple[Ids, Ids]:
    shape = len(rows), max(len(row) for row in rows)
    ids, mask = np.full(shape, pad_token_id, np.int32), np.zeros(shape, np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
    return ids, mask


def _difference(expected: Logits, found: Logits) -> float:
    """Largest absolute difference; infinite when something is not a finite number."""
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return math.inf
    return float(np.abs(expected.astype(np.float64) - found).max())


def _divergence(expected: Logits, found: Logits) -> float:
    """Mean over the rows of sum p * log(p / q), in nats; infinite when something is not a finite number."""
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return math.inf
    log_p, log_q = _log_softmax(expected), _log_softmax(found)
    return max(0.0, float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean()))  # rounding may leave -1e-17


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found
