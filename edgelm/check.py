"""One artifact against the module it was exported from, and against the original: parity, accuracy, the gate."""

from __future__ import annotations

import hashlib

import numpy as np

from edgelm import tasks
from edgelm.data import Dataset
from edgelm.errors import GateFailed
from edgelm.exporters import exporter, parity
from edgelm.manifest import Format, Precision, Score, Variant
from edgelm.model import Encoder
from edgelm.progress import Advance
from edgelm.recipe import Recipe
from edgelm.runtimes import Logits, Session, engine
from edgelm.text import Tokenizer

__all__ = ["PARITY_TEXTS", "Reference", "check"]

PARITY_TEXTS = 300
"""Dev texts that parity is measured on; the score is that of all of them."""


class Reference:
    """A module's answers to the dev texts, computed once and shared by all that is compared with it.

    Attributes:
        model: the module; whoever is no encoder of ours answers for itself.
        texts: the dev texts.
        rows: their token ids, int32.
        hostile: token ids of the hostile texts (``parity.HOSTILE_TEXTS``).
        logits: float32, shape (texts, classes).
        score: on the dev texts, if they have labels.
    """

    def __init__(self, model: Encoder | parity.Answers, tokenizer: bytes, max_tokens: int, texts: Dataset) -> None:
        cut = Tokenizer(tokenizer, max_tokens=max_tokens, pad_token_id=model.config.pad_token_id, tell=False)
        self.model, self.texts = model, texts
        self.rows = cut.encode(list(texts.texts))
        self.hostile = cut.encode(list(parity.HOSTILE_TEXTS))
        self.logits = parity.reference(model, self.rows)
        self.score = None if texts.gold is None else tasks.accuracy(self.logits, texts.gold)


def check(
    form: Format,
    precision: Precision,
    artifact: bytes,
    lengths: tuple[int, ...],
    module: Reference,
    original: Reference,
    recipe: Recipe,
    progress: Advance,
) -> Variant:
    """Run an artifact on its engine, compare it, and hold it against its gate.

    Args:
        form: of the artifact.
        precision: of the artifact.
        artifact: its content.
        lengths: token lengths of its signatures.
        module: what it was exported from.
        original: what that was compressed from.
        recipe: has the gates.
        progress: called with the number of dev texts done since the last call.

    Raises:
        GateFailed: it is outside its gate; the error names the artifact and each figure.
    """
    name, gate = f"{form} {precision}", recipe.gate(precision)
    runs_on = exporter(form).ENGINE
    session = engine(runs_on).load(artifact, threads=1)
    try:
        rows, expected = module.rows[:PARITY_TEXTS], module.logits[:PARITY_TEXTS]
        close = parity.check(module.model, session, rows, module.hostile, expected=expected)
        logits = _logits(session, module, progress)
    finally:
        session.close()
    parity.enforce(close, gate, name)
    score = None if module.texts.gold is None else tasks.accuracy(logits, module.texts.gold)
    if score is not None and module.score is not None:
        _hold(score, module.score, gate.accuracy_loss, name)
    return Variant(
        engine=runs_on,
        format=form,
        precision=precision,
        file=f"model.{precision}.{form}",
        bytes=len(artifact),
        sha256=hashlib.sha256(artifact).hexdigest(),
        lengths=lengths if form == "tflite" else (),
        parity=close,
        agreement=float((logits.argmax(-1) == original.logits.argmax(-1)).mean()),
        score=score,
    )


def _logits(session: Session, module: Reference, progress: Advance) -> Logits:
    """Logits of every dev text, each alone at its own length."""
    found = []
    for row in module.rows:
        found.append(session.run(row[None], np.ones_like(row)[None]))
        progress(1)
    return np.concatenate(found)


def _hold(score: Score, module: Score, points: float, name: str) -> None:
    loss = 100 * (module.value - score.value)
    if loss > points + 1e-9:
        raise GateFailed(
            f"{name}: {score.metric} {score.value:.4f} on {score.n} texts is {loss:.2f} points below the module's "
            f"{module.value:.4f}; the gate allows {points:g}"
        )
