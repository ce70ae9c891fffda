"""The one place that knows the order of the steps: compress → export → check → bundle → profile."""

from __future__ import annotations

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
from edgelm.manifest import Baseline, Device, Manifest, Variant
from edgelm.model import parameters
from edgelm.profile.measure import profile_bundle
from edgelm.progress import Advance, Progress, silent
from edgelm.recipe import Located
from edgelm.runs import Profile
from edgelm.schema import encode

__all__ = ["build", "example", "export"]

GOLDEN_TEXTS = 8


def export(compressed: Compressed, located: Located, out: Path, *, progress: Progress = silent) -> Manifest:
    """Export to every format and precision, check each against the module and its gate, write the bundle.

    Raises:
        GateFailed: a variant is outside its gate; nothing is left under ``out``.
        EdgelmError: a converter failed, or the data cannot be used.
    """
    with bundle.staged(out) as staging:
        return _export(compressed, located, staging, progress)


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


def _export(compressed: Compressed, located: Located, staging: Path, progress: Progress) -> Manifest:
    wanted = located.recipe.export
    if wanted is None:
        raise RecipeError('the recipe has no [export] section: expected at least device = "NAME"')
    device = devices.load(wanted.device)
    texts = dev(located, compressed.model.config.labels)
    original = Reference(compressed.original.model, compressed.original.tokenizer, compressed.max_tokens, texts)
    module = Reference(compressed.model, compressed.tokenizer, compressed.max_tokens, texts)
    variants, files = list[Variant](), dict[str, bytes]()
    for form in wanted.formats or device.formats:
        lengths = tuple(length for length in sorted(set(wanted.lengths)) if length <= compressed.max_tokens)
        precisions = wanted.precisions or device.precisions
        with progress(f"export {form}", len(precisions)) as advance:
            artifacts = exporter(form).export(compressed.model, precisions, lengths, tell=_told(advance))
        for precision, artifact in artifacts.items():
            with progress(f"check {form} {precision}", len(texts.texts)) as advance:
                variant = check(form, precision, artifact, lengths, module, original, located.recipe, advance)
            variants.append(variant)
            files[variant.file] = artifact
    manifest = _manifest(compressed, original, device, tuple(variants))
    texts_of_it = {"tokenizer.json": compressed.tokenizer, "recipe.toml": recipe.dump(located.recipe)}
    entries = {**texts_of_it, "golden.json": _golden(module), **files}
    bundle.write(staging, manifest, entries, deflate=wanted.compress == "deflate")
    return manifest


def _told(advance: Advance) -> Tell:
    def tell(report: Report) -> None:
        log(report)
        advance(1)

    return tell


def _manifest(compressed: Compressed, original: Reference, device: Device, variants: tuple[Variant, ...]) -> Manifest:
    shape = compressed.model.config
    return Manifest(
        schema="edgelm.manifest/1",
        edgelm=version("edgelm"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task="text-classification",
        labels=shape.labels,
        max_tokens=compressed.max_tokens,
        pad_token_id=shape.pad_token_id,
        device=device.name,
        model=info(compressed),
        baseline=Baseline(
            bytes=compressed.original.bytes, parameters=parameters(compressed.original.model), score=original.score
        ),
        variants=variants,
    )


def _golden(module: Reference) -> bytes:
    """A few texts with the module's logits, so that any machine can check what it answers."""
    rows = zip(module.texts.texts[:GOLDEN_TEXTS], module.rows, module.logits, strict=False)
    golden = [{"text": text, "input_ids": ids.tolist(), "logits": logits.tolist()} for text, ids, logits in rows]
    return msgspec.json.format(msgspec.json.encode({"schema": "edgelm.golden/1", "rows": golden}), indent=1)
