"""The one place that knows the order of the steps: compress → export → check → bundle → profile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from edgelm import aim, baseline, bundle, devices, recipe, roofline
from edgelm.bundle import Parts
from edgelm.check import Reference, check
from edgelm.compression import Compressed, calibration, compress, dev, forget, info
from edgelm.devices.machine import cores
from edgelm.errors import DataError, RecipeError
from edgelm.exporters import UNCALIBRATED, Report, Tell, check_size, exporter, foreign, log, names
from edgelm.exporters.foreign import Imported
from edgelm.exporters.foreign.companions import companions
from edgelm.manifest import Baseline, Device, Format, Manifest, Precision, Score, Variant
from edgelm.model import parameters
from edgelm.profile.measure import profile_bundle
from edgelm.progress import Advance, Progress, silent
from edgelm.recipe import Export, Located
from edgelm.roofline import Prediction
from edgelm.runs import Profile
from edgelm.runtimes import selftest
from edgelm.runtimes.given import entries
from edgelm.schema import encode

__all__ = ["build", "example", "export", "predict", "source"]

GOLDEN_TEXTS = 8


def source(located: Located, tokenizer: Path | None = None, labels: Path | None = None) -> Compressed | Imported:
    """What there is to export: what compression leaves of a checkpoint, or a model of TensorFlow.

    Args:
        located: the recipe.
        tokenizer: of a model of TensorFlow; see ``edgelm.exporters.foreign.companions``.
        labels: the same.

    Raises:
        EdgelmError: the model, or what stands beside it, cannot be used.
    """
    model, (wanted, _, _) = located.model(), _wanted(located)
    if not foreign.recognised(model):
        if tokenizer or labels:
            raise DataError(
                f"{model}: tokenizer and labels are given for models of TensorFlow; a checkpoint has its own"
            )
        return compress(located)
    if located.recipe.features:
        raise DataError(f"{model}: pooling is chosen for checkpoints; a model of TensorFlow is exported as it is")
    return foreign.read(Path(model), companions(Path(model), tokenizer, labels), wanted.lengths)


def export(compressed: Compressed | Imported, located: Located, out: Path, *, progress: Progress = silent) -> Manifest:
    """Export to every format and precision, check each against the module and its gate, write the bundle.

    Args:
        compressed: what compression leaves, or a model of another framework.
        located: the recipe.
        out: the bundle to write.
        progress: shown while it runs.

    Raises:
        GateFailed: a variant is outside its gate; nothing is left under ``out``.
        EdgelmError: a converter failed, or the data cannot be used.
    """
    _wanted(located)
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
    _wanted(located)
    compressed = compress(located, out=out, progress=progress)
    with bundle.staged(out) as staging:
        manifest = _export(compressed, located, staging, progress)
        original = baseline.extra(compressed.original, cores())
        profile = profile_bundle(staging, seconds=seconds, baseline=[original], progress=progress)
        if compressed.target is not None:
            compressed.report["budget"]["measured"] = aim.measured(compressed.target, bundle.Bundle(staging))
        bundle.add(staging, bundle.PROFILE, encode(profile))
    forget(compressed, out)
    return manifest, profile, compressed


def example(located: Located, compressed: Compressed) -> str:
    """A text that the model may be asked: the first of the recipe's dev texts, or of the sample."""
    return str(dev(located, compressed.model).texts[0])


def predict(compressed: Compressed | Imported, located: Located, manifest: Manifest) -> Prediction:
    """What latency is expected on the device that was built for.

    Args:
        compressed: what was exported.
        located: the recipe.
        manifest: of the bundle.
    """
    return roofline.predict(compressed.model.config, manifest, _wanted(located)[1])


def _export(compressed: Compressed | Imported, located: Located, staging: Path, progress: Progress) -> Manifest:
    wanted, device, precisions = _wanted(located)
    _warn(device, precisions)
    forms = wanted.formats or device.formats
    if "tflite" in forms and isinstance(compressed, Compressed):
        check_size("tflite", compressed.model)  # now, and not when all of ONNX is written
    rows = calibration(located, compressed) if {"int8-static", "fp16"} & {*precisions} else None
    texts = dev(located, compressed.model)
    original = Reference(compressed.original.model, compressed.original.tokenizer, compressed.max_tokens, texts)
    module = original
    if compressed.model is not compressed.original.model:
        module = Reference(compressed.model, compressed.tokenizer, compressed.max_tokens, texts)
    variants, files, lengths = list[Variant](), dict[str, bytes | Parts](), _lengths(compressed, wanted)
    for form in forms:
        chosen = _chosen(compressed, form, wanted, precisions)
        with progress(f"export {form}", len(chosen)) as advance:
            artifacts = _writer(compressed, form)(
                chosen, lengths, calibration=rows, int8=device.int8, tell=_told(advance)
            )
        for precision, artifact in artifacts.items():
            with progress(f"check {form} {precision}", len(texts.texts)) as advance:
                variant = check(form, precision, artifact, lengths, module, original, located.recipe, advance)
            variants.append(variant)
            files |= entries(variant.file, artifact)
    manifest = _manifest(compressed, original, device, tuple(variants))
    texts_of_it = {"tokenizer.json": compressed.tokenizer, "recipe.toml": recipe.dump(located.recipe)}
    beside = {**texts_of_it, "golden.json": _golden(module)}
    bundle.write(staging, manifest, {**beside, **files}, deflate=wanted.compress == "deflate")
    return manifest


def _writer(compressed: Compressed | Imported, form: Format) -> Callable[..., dict[Precision, bytes]]:
    """What writes a model in a format, given precisions and lengths."""
    if isinstance(compressed, Imported):
        return partial(compressed.model.export, form)
    return partial(exporter(form).export, compressed.model)


def _lengths(compressed: Compressed | Imported, wanted: Export) -> tuple[int, ...]:
    if isinstance(compressed, Imported):
        return compressed.lengths
    return tuple(length for length in sorted(set(wanted.lengths)) if length <= compressed.max_tokens)


def _chosen(
    compressed: Compressed | Imported, form: Format, wanted: Export, precisions: Sequence[Precision]
) -> tuple[Precision, ...]:
    """What to write in a format: where nothing is asked for, what can be made of it of what the device prefers.

    Raises:
        RecipeError: that is nothing.
    """
    if isinstance(compressed, Compressed):
        return tuple(precisions)
    can = compressed.model.can.get(form)
    if can is None:
        known = ", ".join(compressed.model.can)
        raise RecipeError(f"{compressed.source}: {form} is not written of such a model: expected one of {known}")
    if wanted.precisions:
        return tuple(precisions)
    found = tuple(one for one in precisions if one in can)
    if not found:
        raise RecipeError(
            f"{compressed.source}: {form} is written of it as {', '.join(can)}, and {wanted.device} prefers "
            f"{', '.join(precisions)}: give --precision"
        )
    return found


def _wanted(located: Located) -> tuple[Export, Device, tuple[Precision, ...]]:
    """What to write, for which device, in which precisions.

    Raises:
        RecipeError: the recipe does not say, names a format that nobody writes, or has no texts that one of the
            precisions needs.
    """
    wanted, texts = located.recipe.export, located.recipe.data
    if wanted is None:
        raise RecipeError('the recipe has no [export] section: expected at least device = "NAME"')
    device = devices.load(wanted.device)
    precisions = wanted.precisions or device.precisions
    for form in wanted.formats or device.formats:
        if form not in names():
            exporter(form)  # it says which there are
    if "int8-static" in precisions and texts.train is None and texts.dev is None:
        raise RecipeError(UNCALIBRATED)
    return wanted, device, precisions


def _warn(device: Device, precisions: Sequence[Precision]) -> None:
    """Say why what was asked for is not to be used on a device; it is written nevertheless."""
    for avoid in device.avoid:
        if avoid.precision in precisions:
            logging.getLogger("edgelm").warning(
                "%s should not be used on %s: %s", avoid.precision, device.name, avoid.reason
            )


def _told(advance: Advance) -> Tell:
    def tell(report: Report) -> None:
        log(report)
        advance(1)

    return tell


def _manifest(
    compressed: Compressed | Imported, original: Reference, device: Device, variants: tuple[Variant, ...]
) -> Manifest:
    shape = compressed.model.config
    return Manifest(
        schema="edgelm.manifest/1",
        edgelm=version("edgelm"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=shape.task,
        labels=shape.labels,
        multi_label=shape.multi_label,
        mask_token_id=shape.mask_token_id,
        max_tokens=compressed.max_tokens,
        pad_token_id=shape.pad_token_id,
        device=device.name,
        model=info(compressed),
        baseline=_baseline(compressed, original.score),
        variants=variants,
    )


def _baseline(compressed: Compressed | Imported, score: Score | None) -> Baseline:
    original = compressed.original
    found = Baseline(bytes=original.bytes, parameters=parameters(original.model), score=score)
    if isinstance(compressed, Imported):
        return msgspec.structs.replace(found, engine=compressed.engine, precision=compressed.precision)
    return found


def _golden(module: Reference) -> bytes:
    """A few inputs with the module's outputs, so that any machine can check what it answers.

    An output with a logit for every piece of a vocabulary is told by its first columns.
    """
    rows = zip(module.rows[:GOLDEN_TEXTS], module.outputs, strict=False)
    golden = [{"input_ids": ids.tolist(), "logits": output[..., : selftest.COLUMNS].tolist()} for ids, output in rows]
    return msgspec.json.format(msgspec.json.encode({"schema": "edgelm.golden/1", "rows": golden}), indent=1)
