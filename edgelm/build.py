"""The one place that knows the order of the steps: compress → export → check → bundle → profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from edgelm import aim, baseline, bundle, devices, recipe
from edgelm.check import Reference, check
from edgelm.compression import Compressed, compress, dev, forget, info
from edgelm.devices.machine import cores
from edgelm.errors import RecipeError
from edgelm.exporters import Report, Tell, exporter, log
from edgelm.exporters.foreign import Foreign
from edgelm.manifest import Baseline, Device, Format, Manifest, ModelInfo, Precision, Profile, Variant
from edgelm.model import parameters
from edgelm.profile.measure import profile_bundle
from edgelm.progress import Advance, Progress, silent
from edgelm.recipe import Export, Located
from edgelm.schema import encode

__all__ = ["build", "example", "export"]

GOLDEN_TEXTS = 8


def export(source: Compressed | Foreign, located: Located, out: Path, *, progress: Progress = silent) -> Manifest:
    """Export to every format and precision, check each against the module and its gate, write the bundle.

    Args:
        source: what compression leaves, or a model of TensorFlow.
        located: the recipe.
        out: the bundle to write.
        progress: shown while it runs.

    Raises:
        GateFailed: a variant is outside its gate; nothing is left under ``out``.
        EdgelmError: a converter failed, or the data cannot be used.
    """
    with bundle.staged(out) as staging:
        return _export(source, located, staging, progress)


def build(
    located: Located, out: Path, *, seconds: float, progress: Progress = silent
) -> tuple[Manifest, Profile, Compressed]:
    """Everything: the bundle is under ``out`` only when it was exported, checked and profiled.

    Args:
        located: the recipe.
        out: the bundle to write.
        seconds: to profile, at least so long for each length.
        progress: shown while it runs.

    Raises:
        EdgelmError: as in ``compress`` and ``export``.
    """
    compressed = compress(located, out=out, progress=progress)
    with bundle.staged(out) as staging:
        manifest = _export(compressed, located, staging, progress)
        original = baseline.extra(compressed.original, cores())
        profile = profile_bundle(staging, seconds=seconds, baseline=[original], progress=progress)
        if compressed.target is not None:
            read, vocab = bundle.Bundle(staging).read, manifest.model.vocab
            found = aim.measured(compressed.target, manifest.variants, read, vocab)
            compressed.report["budget"]["measured"] = found
        bundle.add(staging, bundle.PROFILE, encode(profile))
    forget(compressed, out)
    return manifest, profile, compressed


def example(located: Located, manifest: Manifest) -> str:
    """A text that the model may be asked: the first of the recipe's dev texts, or of the sample."""
    return dev(located, manifest.labels).texts[0]


@dataclass(frozen=True)
class _Subject:
    """What is exported, and what it is compared with.

    Attributes:
        module: answers of what is exported.
        original: answers of what that was compressed from.
        tokenizer: content of ``tokenizer.json``.
        max_tokens: longer texts are cut to this.
        plan: precisions of each format.
        lengths: token lengths to write signatures for.
        info: of the module, for the manifest.
        baseline: of the original, for the manifest.
        write: the artifacts of one format.
    """

    module: Reference
    original: Reference
    tokenizer: bytes
    max_tokens: int
    plan: dict[Format, tuple[Precision, ...]]
    lengths: tuple[int, ...]
    info: ModelInfo
    baseline: Baseline
    write: Callable[[Format, Sequence[Precision], Tell], dict[Precision, bytes]]


def _export(source: Compressed | Foreign, located: Located, staging: Path, progress: Progress) -> Manifest:
    wanted = located.recipe.export
    if wanted is None:
        raise RecipeError('the recipe has no [export] section: expected at least device = "NAME"')
    device = devices.load(wanted.device)
    if isinstance(source, Compressed):
        subject = _ours(source, located, wanted, device)
    else:
        subject = _foreign(source, located, wanted, device)
    module, original = subject.module, subject.original
    variants, files = list[Variant](), dict[str, bytes]()
    for form, precisions in subject.plan.items():
        with progress(f"export {form}", len(precisions)) as advance:
            artifacts = subject.write(form, precisions, _told(advance))
        for precision, artifact in artifacts.items():
            with progress(f"check {form} {precision}", len(module.rows)) as advance:
                variant = check(form, precision, artifact, subject.lengths, module, original, located.recipe, advance)
            variants.append(variant)
            files[variant.file] = artifact
    manifest = _manifest(subject, device, tuple(variants))
    texts_of_it = {"tokenizer.json": subject.tokenizer, "recipe.toml": recipe.dump(located.recipe)}
    entries = {**texts_of_it, "golden.json": _golden(module), **files}
    bundle.write(staging, manifest, entries, deflate=wanted.compress == "deflate")
    return manifest


def _ours(compressed: Compressed, located: Located, wanted: Export, device: Device) -> _Subject:
    texts = dev(located, compressed.model.config.labels)
    original = Reference(compressed.original.model, compressed.original.tokenizer, compressed.max_tokens, texts)
    lengths = tuple(length for length in sorted(set(wanted.lengths)) if length <= compressed.max_tokens)
    return _Subject(
        module=Reference(compressed.model, compressed.tokenizer, compressed.max_tokens, texts),
        original=original,
        tokenizer=compressed.tokenizer,
        max_tokens=compressed.max_tokens,
        plan=dict.fromkeys(wanted.formats or device.formats, wanted.precisions or device.precisions),
        lengths=lengths,
        info=info(compressed),
        baseline=Baseline(
            bytes=compressed.original.bytes, parameters=parameters(compressed.original.model), score=original.score
        ),
        write=lambda form, precisions, tell: exporter(form).export(compressed.model, precisions, lengths, tell=tell),
    )


def _foreign(model: Foreign, located: Located, wanted: Export, device: Device) -> _Subject:
    """A model of TensorFlow, which is not compressed: it is its own original."""
    shape = model.config
    plan = model.plan(wanted, device)
    lengths = model.lengths or tuple(n for n in sorted(set(wanted.lengths)) if n <= shape.max_positions)
    answers = Reference(model, model.tokenizer, shape.max_positions, dev(located, shape.labels))
    return _Subject(
        module=answers,
        original=answers,
        tokenizer=model.tokenizer,
        max_tokens=shape.max_positions,
        plan=plan,
        lengths=lengths,
        info=ModelInfo(
            source=Path(model.source).name,
            parameters=model.parameters,
            dim=shape.dim,
            heads=shape.heads,
            ffn=shape.ffn,
            vocab=shape.vocab_size,
        ),
        baseline=Baseline(bytes=model.size, parameters=model.parameters, score=answers.score),
        write=lambda form, precisions, tell: model.export(form, precisions, lengths, tell=tell),
    )


def _told(advance: Advance) -> Tell:
    def tell(report: Report) -> None:
        log(report)
        advance(1)

    return tell


def _manifest(subject: _Subject, device: Device, variants: tuple[Variant, ...]) -> Manifest:
    shape = subject.module.model.config
    return Manifest(
        schema="edgelm.manifest/1",
        edgelm=version("edgelm"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task="text-classification",
        labels=shape.labels,
        max_tokens=subject.max_tokens,
        pad_token_id=shape.pad_token_id,
        device=device.name,
        model=subject.info,
        baseline=subject.baseline,
        variants=variants,
    )


def _golden(module: Reference) -> bytes:
    """A few texts with the module's logits, so that any machine can check what it answers."""
    rows = zip(module.texts.texts[:GOLDEN_TEXTS], module.rows, module.logits, strict=False)
    golden = [{"text": text, "input_ids": ids.tolist(), "logits": logits.tolist()} for text, ids, logits in rows]
    return msgspec.json.format(msgspec.json.encode({"schema": "edgelm.golden/1", "rows": golden}), indent=1)
