"""LiteRT with XNNPACK on the CPU: one signature for each length, all on one set of weights.

By its ``Interpreter``. The newer ``CompiledModel`` would pack the weights once for all signatures, and keep them on
disk, but holds Python's lock for as long as a request takes: other threads, and an event loop, would stand still.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from importlib.metadata import version
from typing import Any

import numpy as np

from edgelm.bundle import Bundle
from edgelm.errors import BundleError, DataError
from edgelm.manifest import Variant
from edgelm.runtimes import Ids, Logits, Session
from edgelm.runtimes.place import CPU, Place
from edgelm.runtimes.tflite_content import Content

__all__ = ["DEVICES", "FORMAT", "SIGNATURE", "load", "load_from", "missing"]

FORMAT = "tflite"
DEVICES = ("cpu", "xnnpack")
SIGNATURE = re.compile(r"tokens_(\d+)")
"""Names of signatures, with the tokens that they take."""


def missing(device: str = "cpu") -> str | None:
    """Why LiteRT cannot run here, with the cure; None when it can. XNNPACK is in every wheel of it."""
    del device
    if importlib.util.find_spec("ai_edge_litert") is None:
        return "LiteRT is not installed: pip install 'edgelm[litert]'"
    return None


def load(artifact: bytes, *, threads: int, place: Place = CPU) -> Session:
    """Load a TFLite model with signatures such as ``tokens_16`` and ``tokens_32``.

    Args:
        artifact: the file's content.
        threads: of XNNPACK.
        place: ``cpu`` or ``xnnpack``, which are the same.

    Raises:
        BundleError: LiteRT does not take it, or it has no such signatures.
    """
    return _started(bytes(memoryview(artifact)), threads, place)  # a copy: see Content


def load_from(bundle: Bundle, variant: Variant, *, threads: int, place: Place = CPU) -> Session:
    """Load a variant of a bundle; see ``load``."""
    return _started(bundle.read(variant.file), threads, place)


def _started(artifact: bytes, threads: int, place: Place) -> Session:
    content = Content(artifact)
    signatures = {int(found[1]): name for name in content.names if (found := SIGNATURE.fullmatch(name))}
    first = content.only(signatures[min(signatures)]) if signatures else artifact
    started = _interpreter(first, threads)
    if not signatures:
        names = list(started.get_signature_list())
        raise BundleError(f"expected signatures such as tokens_32 in the artifact, found {names or 'none'}")
    return _Session(content, signatures, started, threads, str(place))


def _interpreter(content: bytes, threads: int) -> Any:
    """LiteRT's own.

    Raises:
        BundleError: it does not take what it is given.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        return Interpreter(model_content=content, num_threads=threads)
    except (ValueError, RuntimeError) as exc:
        reason = " ".join(str(exc).split())[:200]
        raise BundleError(f"LiteRT {version('ai-edge-litert')} cannot load the artifact: {reason}") from exc


class _Session:
    def __init__(self, content: Content, signatures: dict[int, str], started: Any, threads: int, device: str) -> None:
        self._content, self._signatures, self._threads, self._device = content, signatures, threads, device
        self._lengths = sorted(signatures)
        self._started = {self._lengths[0]: started}
        self._runners: dict[int, Any] = {}
        self._open, self._lock = True, threading.Lock()  # an interpreter runs one request at a time

    def run(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """Each row alone, in the smallest signature that it fits into."""
        rows = zip(input_ids, attention_mask.sum(-1), strict=True)
        return np.stack([_fitted(self._row(ids[:tokens]), input_ids.shape[1]) for ids, tokens in rows])

    def _row(self, ids: Ids) -> Logits:
        length = next((length for length in self._lengths if len(ids) <= length), None)
        if length is None:
            raise DataError(f"{len(ids)} tokens are more than the longest signature takes ({self._lengths[-1]})")
        padded, mask = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
        padded[0, : len(ids)], mask[0, : len(ids)] = ids, 1
        with self._lock:
            (found,) = self._runner(length)(input_ids=padded, attention_mask=mask).values()
        output: Logits = found[0]
        return output

    def _runner(self, length: int) -> Any:
        """Of a signature; made when it is first used, because its weights are packed and its tensors allocated then."""
        if not self._open:
            raise DataError("the model is closed: load it again")
        if length not in self._runners:
            which, name = length if self._content.divisible else self._lengths[0], self._signatures[length]
            if which not in self._started:
                self._started[which] = _interpreter(self._content.only(name), self._threads)
            self._runners[length] = self._started[which].get_signature_runner(name)
        return self._runners[length]

    def explain(self) -> dict[str, Any]:
        return {
            "engine": "litert",
            "version": version("ai-edge-litert"),
            "device": self._device,
            "provider": "XNNPACK",
            "threads": self._threads,
            "lengths": self._lengths,
            "nodes": {},
        }

    def close(self) -> None:
        with self._lock:
            self._open = False
            self._runners.clear()
            self._started.clear()


def _fitted(output: Logits, tokens: int) -> Logits:
    """One row's output; one that has a line for each token, cut or filled up to the length of the batch."""
    if output.ndim == 1:
        return output
    found = np.zeros((tokens, output.shape[1]), output.dtype)
    found[: len(output)] = output[:tokens]
    return found
