"""One artifact against the module it was exported from, and against the original: parity, accuracy, the gate."""

from __future__ import annotations

import hashlib

import numpy as np

from edgelm import tasks
from edgelm.bundle import Parts
from edgelm.data import Dataset
from edgelm.errors import GateFailed
from edgelm.exporters import exporter, parity
from edgelm.exporters.parity import task_of
from edgelm.manifest import External, Format, Precision, Score, Variant
from edgelm.model import Network
from edgelm.progress import Advance
from edgelm.recipe import Recipe
from edgelm.runtimes import Logits, Session, engine
from edgelm.runtimes.given import entries
from edgelm.text import Tokenizer

__all__ = ["Reference", "check"]


class Reference:
    """A module's answers to the dev texts, computed once and shared by all that is compared with it.

    Attributes:
        model: the module.
        task: what its outputs mean.
        texts: the dev texts.
        exam: what is run of them.
        kept: of each of them, of each window, what the score needs of the output.
        rows: token ids of all windows, int32.
        outputs: the module's, for the first of ``rows``, on which parity is measured.
        hostile: token ids of the hostile texts (``parity.HOSTILE_TEXTS``).
        scores: on the dev texts, if they have labels; the one that counts first.
    """

    def __init__(self, model: Network, tokenizer: bytes, max_tokens: int, texts: Dataset) -> None:
        cut = Tokenizer(tokenizer, max_tokens=max_tokens, pad_token_id=model.config.pad_token_id, tell=False)
        self.model, self.texts, self.task = model, texts, task_of(model)
        self.exam = self.task.exam(cut, texts.texts, texts.gold)
        windows = [window for several in self.exam.windows for window in several]
        found = parity.outputs(model, [window.ids for window in windows])
        kept = iter([self.task.keep(window, output) for window, output in zip(windows, found, strict=True)])
        self.kept = [[next(kept) for _ in several] for several in self.exam.windows]
        self.rows = [window.ids for window in windows]
        self.outputs = found[: self.task.PARITY_ROWS]
        self.hostile = cut.encode(list(parity.HOSTILE_TEXTS))
        self.scores = None if self.exam.gold is None else self.task.scores(self.exam, self.kept)

    @property
    def score(self) -> Score | None:
        """The score that counts."""
        return self.scores[0] if self.scores else None

    @property
    def logits(self) -> Logits:
        """Of a text classifier, float32, shape (texts, classes)."""
        return np.stack([outputs[0] for outputs in self.kept])


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
        rows = module.rows[: len(module.outputs)]
        close = parity.check(module.model, session, rows, module.hostile, expected=module.outputs)
        kept = _kept(session, module, progress)
    finally:
        session.close()
    parity.enforce(close, gate, name)
    scores = None if module.exam.gold is None else module.task.scores(module.exam, kept)
    if scores is not None and module.score is not None:
        _hold(scores[0], module.score, gate.accuracy_loss, name)
    held = entries(f"model.{precision}.{form}", artifact)
    (file, digest), *beside = ((name, _sha256(parts)) for name, parts in held.items())
    return Variant(
        engine=runs_on,
        format=form,
        precision=precision,
        file=file,
        bytes=sum(len(part) for parts in held.values() for part in parts),
        sha256=digest,
        external=next((External(file=name, sha256=digest) for name, digest in beside), None),
        lengths=lengths if form == "tflite" else (),
        parity=close,
        agreement=tasks.agreement(module.task, original.kept, kept),
        score=scores[0] if scores else None,
    )


def _sha256(parts: Parts) -> str:
    seen = hashlib.sha256()
    for part in parts:
        seen.update(part)
    return seen.hexdigest()


def _kept(session: Session, module: Reference, progress: Advance) -> list[list[Logits]]:
    """What the score needs of the artifact's output for each window, run alone at its own length."""
    found = []
    for windows in module.exam.windows:
        outputs = [session.run(window.ids[None], np.ones_like(window.ids)[None])[0] for window in windows]
        found.append([module.task.keep(window, output) for window, output in zip(windows, outputs, strict=True)])
        progress(1)
    return found


def _hold(score: Score, module: Score, points: float, name: str) -> None:
    lost = tasks.loss(module, score)
    if lost > points + 1e-9:
        raise GateFailed(
            f"{name}: {score.metric} {score.value:.4f} on {score.n} texts is {lost:.2f} points worse than the module's "
            f"{module.value:.4f}; the gate allows {points:g}"
        )
