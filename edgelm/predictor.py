"""``edgelm.load``: bundle, tokenizer, engine and task put together; texts in, answers out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgelm import runtimes
from edgelm.bundle import Bundle
from edgelm.devices.machine import cores
from edgelm.errors import DataError, DeviceUnavailable
from edgelm.manifest import Manifest, Variant
from edgelm.runtimes import Logits, Session
from edgelm.runtimes.choose import able, fastest
from edgelm.tasks import classify
from edgelm.text import Tokenizer

__all__ = ["Model", "check_device", "load"]

DEVICES = ("auto", "cpu")


def load(
    path: Path | str,
    *,
    device: str = "auto",
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> Model:
    """Load a bundle to run on this machine.

    Args:
        path: the ``.edgelm`` file.
        device: ``auto`` takes the variant that is fastest here, as measured; in this version that is always one on
            the CPU, and ``cpu`` says the same.
        engine: only this one, such as ``onnxruntime`` or ``litert``.
        precision: only this one, such as ``int8-dynamic``.
        threads: for the engine; the physical cores that this process may use when not given.

    Raises:
        BundleError: the bundle cannot be read.
        DeviceUnavailable: what was asked for would not really be used here.
    """
    check_device(device)
    if threads is not None and threads < 1:
        raise DataError(f"threads: expected at least 1, found {threads}")
    bundle, threads = Bundle(path), threads or cores()
    variants = able(bundle.manifest, engine, precision)

    def opened(variant: Variant) -> Session:
        return runtimes.engine(variant.engine).load(bundle.read(variant.file), threads=threads)

    if len(variants) == 1:
        return Model(bundle.manifest, bundle.tokenizer, variants[0], opened(variants[0]), {"chosen": "the only one"})
    choice = fastest(variants, opened, threads=threads, vocab=bundle.manifest.model.vocab)
    why = {"chosen": "fastest measured here", "medians_ms": choice.medians_ms, "measured_earlier": choice.cached}
    return Model(bundle.manifest, bundle.tokenizer, choice.variant, opened(choice.variant), why)


class Model:
    """A loaded model. Use it as a function, and as a context manager to free its memory.

    Attributes:
        manifest: of the bundle.
        variant: what runs.
    """

    def __init__(
        self, manifest: Manifest, tokenizer: bytes, variant: Variant, session: Session, why: dict[str, Any]
    ) -> None:
        """Use ``edgelm.load``."""
        self.manifest, self.variant = manifest, variant
        self._tokenizer = Tokenizer(tokenizer, max_tokens=manifest.max_tokens, pad_token_id=manifest.pad_token_id)
        self._session, self._why = session, why

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, by index."""
        return self.manifest.labels

    def __call__(self, texts: str | Sequence[str], *, top_k: int | None = 0) -> Any:
        """Classify.

        Args:
            texts: one text or several; lengths may differ freely.
            top_k: this many labels for each text, all with None. Without it, the best one.

        Returns:
            As transformers' pipeline. Without ``top_k`` a list with an answer for each text, an answer being
            ``{"label": str, "score": float}``; with it an answer is a list of those, best first, and for one text
            alone the answer itself is returned.

        Raises:
            DataError: something is not text; it says which.
        """
        several = [texts] if isinstance(texts, str) else texts
        if not isinstance(several, Sequence) or isinstance(several, bytes):
            raise DataError(f"expected a text or a list of texts, found {type(texts).__name__}")
        if top_k is not None and top_k < 0:
            raise DataError(f"top_k: expected a positive number or None, found {top_k}")
        count = len(self.labels) if top_k is None else top_k or 1
        found = classify(self.logits(several), self.labels, count)
        if top_k == 0:
            return [answers[0] for answers in found]
        return found[0] if isinstance(texts, str) else found

    def logits(self, texts: Sequence[str]) -> Logits:
        """Logits, float32, shape (texts, classes)."""
        rows = self._tokenizer.encode(texts)
        if not rows:
            return np.zeros((0, len(self.labels)), np.float32)
        # One by one, at each text's own length: nothing is padded, and int8 gives a text the same answer alone and
        # among others (dynamic quantization scales a whole batch by its largest activation).
        return np.concatenate([self._session.run(row[None], np.ones_like(row)[None]) for row in rows])

    def explain(self) -> dict[str, Any]:
        """What runs: engine, version, provider, threads, signatures, artifact, and why it was chosen."""
        return {
            **self._session.explain(),
            "precision": self.variant.precision,
            "artifact": self.variant.file,
            "max_tokens": self.manifest.max_tokens,
            **self._why,
        }

    def close(self) -> None:
        """Free the engine's memory; the model cannot be used afterwards."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_device(device: str) -> None:
    """Refuse a device that would not really be used.

    Raises:
        DeviceUnavailable: it is neither ``auto`` nor ``cpu``, which are what the engines of this version run on.
    """
    if device not in DEVICES:
        raise DeviceUnavailable(
            f"device '{device}' would not really be used: this version of edgelm runs on the CPU alone; "
            "ask for device 'cpu' or 'auto'"
        )
