"""``edgelm.load``: bundle, tokenizer, engine and task put together; texts in, answers out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgelm import batches, runtimes, tasks
from edgelm.bundle import Bundle
from edgelm.devices.machine import cores
from edgelm.errors import DataError
from edgelm.manifest import Manifest, Variant
from edgelm.runtimes import Logits, Session, selftest
from edgelm.runtimes.choose import able, fastest
from edgelm.runtimes.place import CPU, Place, parse
from edgelm.tasks import check_options
from edgelm.text import Tokenizer, Window

__all__ = ["Model", "load", "place"]

_log = logging.getLogger("edgelm")


def load(
    path: Path | str,
    *,
    device: str = "auto",
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    allow_cpu_ops: bool = False,
) -> Model:
    """Load a bundle to run on this machine.

    The first time a variant is loaded on a machine, the bundle's golden inputs are run through it.

    Args:
        path: the ``.edgelm`` file.
        device: ``auto`` takes the variant that is fastest here on the CPU, as measured. Any other is what runs, or it
            raises: ``cpu``, ``cuda``, ``cuda:1``, ``tensorrt``, ``openvino``, ``coreml``, ``directml``, ``xnnpack``
            (LiteRT), ``qnn``.
        engine: only this one, such as ``onnxruntime`` or ``litert``.
        precision: only this one, such as ``int8-dynamic``.
        threads: for the engine; the physical cores that this process may use when not given.
        allow_cpu_ops: let the CPU compute what the device cannot.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: ``threads`` is less than 1.
        DeviceUnavailable: what was asked for would not really be used here.
        SelfTestFailed: the variant computes something else here than where it was built.
    """
    asked = place(device, allow_cpu_ops=allow_cpu_ops)
    if threads is not None and threads < 1:
        raise DataError(f"threads: expected at least 1, found {threads}")
    bundle, threads = Bundle(path), threads or cores()
    variants = able(bundle.manifest, engine, precision, asked.device)
    verdicts: dict[Variant, dict[str, Any]] = {}

    def start(variant: Variant) -> Session:
        session = runtimes.load(bundle, variant, threads=threads, place=asked)
        try:
            verdicts[variant] = _tested(bundle, variant, session, threads, asked)
        except BaseException:
            session.close()
            raise
        return session

    why: dict[str, Any]
    if len(variants) == 1:
        variant, why = variants[0], {"chosen": "the only one"}
        session = start(variant)
    else:
        vocab = bundle.manifest.model.vocab
        choice = fastest(variants, start, bundle=bundle.path.name, threads=threads, vocab=vocab, place=asked)
        variant, session = choice.variant, choice.session
        why = {"chosen": "fastest measured here", "fastest_ms": choice.fastest_ms, "measured_earlier": choice.cached}
        why["left_out"] = choice.left_out
    return Model(bundle.manifest, bundle.tokenizer, variant, session, {**why, "self_test": verdicts[variant]})


def place(device: str, *, allow_cpu_ops: bool = False) -> Place:
    """Where to run, from a device's name; ``auto`` is the CPU.

    Raises:
        DeviceUnavailable: there is no device of this name.
    """
    others = [runtimes.engine(name).DEVICES for name in runtimes.names() if name not in runtimes.ENGINES]
    asked = parse(device, allow_cpu_ops=allow_cpu_ops, others=tuple(name for devices in others for name in devices))
    return CPU if asked.device == "auto" else asked


def _tested(bundle: Bundle, variant: Variant, session: Session, threads: int, where: Place) -> dict[str, Any]:
    """What the self-test says, for ``explain``."""
    if selftest.ENTRY not in bundle.downloads:
        _log.warning("%s: holds no %s, so %s is not tested here", bundle.path, selftest.ENTRY, variant.file)
        return {"passed": None}
    read = partial(bundle.read, selftest.ENTRY)
    verdict, earlier = selftest.tested(variant, session, read, threads=threads, place=where)
    return {
        "passed": verdict.passed,
        "rows": verdict.rows,
        "difference": verdict.difference,
        "bound": verdict.bound,
        "tested_earlier": earlier,
    }


class Model:
    """A loaded model. Use it as a function, and as a context manager to free its memory.

    Attributes:
        manifest: of the bundle.
        variant: what runs.
        task: what its outputs mean.
        tokenizer: of the bundle.
    """

    def __init__(
        self, manifest: Manifest, tokenizer: bytes, variant: Variant, session: Session, why: dict[str, Any]
    ) -> None:
        """Use ``edgelm.load``."""
        self.manifest, self.variant = manifest, variant
        self.tokenizer = Tokenizer(tokenizer, max_tokens=manifest.max_tokens, pad_token_id=manifest.pad_token_id)
        self.task = tasks.of(
            manifest.task,
            labels=manifest.labels,
            multi_label=manifest.multi_label,
            mask_token_id=manifest.mask_token_id,
        )
        self._session, self._why = session, why

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, by index."""
        return self.manifest.labels

    def __call__(self, inputs: Any = None, **options: Any) -> Any:
        """Answer.

        Args:
            inputs: one or several, whose lengths may differ freely: texts; of question answering, mappings with
                ``question`` and ``context``, which one alone may also be given as keywords.
            options: of the task, as transformers' pipelines have them. Text classification: ``top_k`` labels for each
                text, all with None. Token classification: ``aggregation_strategy``, ``stride``. Question answering:
                ``top_k``, ``max_answer_len``, ``handle_impossible_answer``, ``doc_stride``. Fill-mask: ``top_k``,
                ``targets``. Feature extraction: ``stride``. See the ``answer`` of ``edgelm.tasks``.

        Returns:
            As transformers' pipeline: for a list, a list with the answer to each; for one input its answer, which for
            text classification without ``top_k`` is a list of one.

        Raises:
            DataError: an input is not what the task takes, and it says which; or there is no such option.
        """
        if inputs is None and options.keys() >= {"question", "context"}:
            inputs = {key: options.pop(key) for key in ("question", "context")}
        alone = isinstance(inputs, str | Mapping)
        several = [inputs] if alone else inputs
        if not isinstance(several, Sequence) or isinstance(several, bytes):
            raise DataError(f"expected a text or a list of texts, found {type(inputs).__name__}")
        check_options(self.task, options, self.manifest.task)
        cut = self.task.cut(self.tokenizer, several, **options)
        answers = [
            self.task.answer(self.tokenizer, given, windows, outputs, **options)
            for given, windows, outputs in zip(several, cut, self._outputs(cut), strict=True)
        ]
        if alone and not (self.manifest.task == "text-classification" and "top_k" not in options):
            return answers[0]
        return answers

    def encode(self, texts: Sequence[str], *, stride: int | None = None) -> Logits:
        """Vectors of texts, float32, shape (texts, dim), of a model for ``feature-extraction``.

        Args:
            texts: the texts.
            stride: read a long text whole, in windows that share so many tokens, and give their mean, each window
                counted by its tokens; without it, a long text is cut.

        Raises:
            DataError: the model is for another task, or something is not text.
        """
        if not isinstance(self.task, tasks.FeatureExtraction):
            raise DataError(f"this model is for {self.manifest.task}: expected one for feature-extraction")
        if stride is None:
            return self.logits(texts)
        cut = self.task.cut(self.tokenizer, texts, stride=stride)
        found = [self.task.joined(*both) for both in zip(cut, self._outputs(cut), strict=True)]
        return np.stack(found) if found else np.zeros((0, 0), np.float32)

    def logits(self, texts: Sequence[str]) -> Logits:
        """The outputs for texts that have one row each: logits of text classification, shape (texts, classes)."""
        windows = self.tokenizer.windows(texts)
        if not windows:
            return np.zeros((0, len(self.labels)), np.float32)
        return np.stack([output for (output,) in self._outputs([[window] for window in windows])])

    def run(self, window: Window) -> Logits:
        """The output for what is read at once, without its batch axis."""
        ((output,),) = self._outputs([[window]])
        return output

    def _outputs(self, cut: Sequence[Sequence[Window]]) -> Iterator[list[Logits]]:
        """The outputs for the windows of each input.

        On a CPU one by one, at their own lengths: nothing is padded, and int8 gives a text the same answer alone and
        among others (dynamic quantization scales a whole batch by its largest activation).
        """
        at_once: int = getattr(self._session, "tokens_at_once", 0)
        if at_once and self.variant.precision in ("fp16", "fp32"):
            yield from batches.outputs(self._session, cut, at_once, self.manifest.max_tokens)
            return
        for windows in cut:
            yield [self._session.run(window.ids[None], np.ones_like(window.ids)[None])[0] for window in windows]

    def explain(self) -> dict[str, Any]:
        """What runs: engine, device, provider, threads, signatures, nodes, artifact, self-test, and why this one."""
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
