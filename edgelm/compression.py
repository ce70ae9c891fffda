"""The order of compression's steps: prune → trim → sparsify → distil."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgelm import aim, bundle, checkpoint, data, devices
from edgelm.check import Reference
from edgelm.checkpoint import Checkpoint
from edgelm.compress.augment import augmented
from edgelm.compress.distill import Dev, distill, steps
from edgelm.compress.sparsify import hold, sparsify
from edgelm.compress.state import State, job, remove
from edgelm.compress.target import Target
from edgelm.compress.vocab import trim
from edgelm.data import Dataset
from edgelm.devices.machine import detect
from edgelm.errors import DataError, RecipeError
from edgelm.exporters.foreign import Imported
from edgelm.exporters.parity import task_of
from edgelm.manifest import Baseline, ModelInfo
from edgelm.model import Encoder, Network, parameters
from edgelm.progress import Progress, silent
from edgelm.recipe import LENGTHS, Distill, Export, Located, Prune, Recipe
from edgelm.schema import to_dict
from edgelm.tasks import agreement
from edgelm.text import Tokenizer

__all__ = ["Compressed", "calibration", "compress", "dev", "forget", "info", "plan", "save", "summary"]

Rows = Sequence[NDArray[np.int32]]

_KNOWN, _LOOKED_AT = 0.6, 2000
"""Share of words that are whole in the vocabulary, in the first texts. With that of an English BERT: English commands
0.97 [CLINC150], tweets 0.90 [WNUT17], German captions 0.48 [Multi30k], Russian none."""


@dataclass(frozen=True)
class Compressed:
    """What compression leaves.

    Attributes:
        original: the checkpoint that went in.
        model: the compressed encoder; the original's own when the recipe compresses nothing.
        tokenizer: content of its ``tokenizer.json``.
        max_tokens: longer texts are cut to this.
        report: SHA-256 of each file of ``data``, and what each step did, by its name, as plain JSON values.
        target: the recipe's budget, if it has one.
    """

    original: Checkpoint
    model: Encoder
    tokenizer: bytes
    max_tokens: int
    report: dict[str, Any]
    target: Target | None = None


def compress(located: Located, *, out: Path | None = None, progress: Progress = silent) -> Compressed:
    """Prune, trim the vocabulary, sparsify and distil, each if the recipe asks for it.

    Args:
        located: the recipe.
        out: what will be written. Beside it, as ``OUT.partial``, is kept how far distillation is; whoever was killed
            goes on from there, and ``save`` and ``build`` remove it. Nothing is kept if not given.
        progress: shown while it runs.

    Raises:
        EdgelmError: the checkpoint, the data or the recipe cannot be used.
    """
    plan = located.recipe
    original = checkpoint.read(located.model(), plan.features)
    limit = _limit(original.model, plan.export)
    model, tokenizer, report = original.model, original.tokenizer, dict[str, Any]()
    wanted = (plan.prune, plan.budget, plan.vocab, plan.sparsity, plan.distill)
    if wanted == (None,) * len(wanted):
        return Compressed(original, model, tokenizer, limit, report)
    train = _train(located, original)
    report["data"] = _hashes(located)
    judges = _judges(located, model.config.labels)
    layers, rows = tuple(range(len(model.layers))), _rows(model, tokenizer, limit, train.texts)
    held = aim.held(located, original, limit)
    target = aim.resolved(located, original, limit, rows, progress)
    if plan.prune is not None or target is not None:
        model, pruned = aim.pruned(model, _pruning(plan), rows, train.gold, target, held, progress)
        layers, report["prune"] = pruned.layers, asdict(pruned)
    if plan.vocab is not None:  # after pruning, which fits the layers to what the original makes of whole words
        model, tokenizer, trimmed = trim(model, tokenizer, plan.vocab, rows)
        report["vocab"] = asdict(trimmed)
    if plan.sparsity is not None:
        if plan.export is not None and plan.export.compress == "none":
            logging.getLogger("edgelm").warning(
                "sparsity gains nothing where variants are stored as they are: set export.compress to 'deflate'"
            )
        model, sparse = sparsify(model, plan.sparsity)
        report["sparsity"] = asdict(sparse)
    if plan.distill is not None:
        texts = _distillation_texts(located, plan.distill, train, original)
        rows = _rows(model, tokenizer, limit, texts)
        theirs = _rows(original.model, original.tokenizer, limit, texts)
        scored = Dev(_rows(model, tokenizer, limit, judges[0]), judges[1]) if judges else None
        state = _state(out, original, model, *wanted, train.gold, scored, rows, theirs) if out else None
        zeros = hold(model) if plan.sparsity else None
        given = (original.model, plan.distill, rows, theirs, layers)
        with progress("distil", steps(rows, plan.distill)) as advance:
            model, distilled = distill(model, *given, dev=scored, state=state, after_step=zeros, progress=advance)
        report["distill"] = asdict(distilled)
    if target is not None:
        report["budget"] = aim.described(target, model.config, original.model.config)
    if held is not None and plan.budget is not None and plan.budget.points is not None:
        report["budget"] |= aim.hold(plan.budget.points, held, Reference(model, tokenizer, limit, held.texts))
    return Compressed(original, model, tokenizer, limit, report, target)


def plan(located: Located, *, progress: Progress = silent) -> dict[str, Any]:
    """What ``compress`` would do, and what that is predicted to give, as plain JSON values; nothing is trained.

    Args:
        located: the recipe.
        progress: shown while it runs.

    Raises:
        EdgelmError: as in ``compress``.
    """
    wanted = located.recipe
    original = checkpoint.read(located.model(), wanted.features)
    limit, before = _limit(original.model, wanted.export), original.model.config
    train = _train(located, original)
    rows = _rows(original.model, original.tokenizer, limit, train.texts)
    target = aim.resolved(located, original, limit, rows, progress)
    shape, tokenizer = before, original.tokenizer
    if wanted.prune is not None or target is not None:
        held = aim.held(located, original, limit)
        shape = aim.planned(original.model, _pruning(wanted), rows, train.gold, target, held, progress)
    trimmed = original.model
    if wanted.vocab is not None:
        trimmed, tokenizer, report = trim(original.model, tokenizer, wanted.vocab, rows)
        shape = replace(shape, vocab_size=report.rows[1])
    pruning = _pruning(wanted) if wanted.prune is not None or target is not None else None
    todo = {"prune": pruning, "vocab": wanted.vocab, "sparsity": wanted.sparsity, "distill": wanted.distill}
    found: dict[str, Any] = {"steps": {name: to_dict(step) for name, step in todo.items() if step is not None}}
    if wanted.distill is not None:
        student = _rows(trimmed, tokenizer, limit, _distillation_texts(located, wanted.distill, train, original))
        found["steps"]["distill"] |= {"texts": len(student), "steps": steps(student, wanted.distill)}
    found["before"], found["after"] = aim.sized(before), aim.sized(shape)
    found["budget"] = aim.described(target, shape, before) if target is not None else None
    return found


def save(compressed: Compressed, folder: Path) -> None:
    """Write a compressed checkpoint; nothing is left under its name unless all of it was written."""
    with bundle.staged_dir(folder) as staging:
        checkpoint.write(staging, compressed.model, compressed.tokenizer)
    forget(compressed, folder)


def summary(compressed: Compressed, located: Located) -> dict[str, Any]:
    """What compression did, as plain JSON values, with scores if the recipe has dev texts with labels."""
    original, score, kept = compressed.original, None, None
    baseline_score = None
    if located.recipe.data.dev is not None:
        texts = dev(located, compressed.model)
        before = Reference(original.model, original.tokenizer, compressed.max_tokens, texts)
        after = Reference(compressed.model, compressed.tokenizer, compressed.max_tokens, texts)
        baseline_score, score = before.score, after.score
        kept = agreement(before.task, before.kept, after.kept)
    weights = Baseline(bytes=original.bytes, parameters=parameters(original.model), score=baseline_score)
    return {
        "baseline": to_dict(weights),
        "model": to_dict(info(compressed)),
        "agreement": kept,
        "score": to_dict(score) if score else None,
        "recipe": {key: value for key, value in to_dict(located.recipe).items() if key not in ("model", "data")},
        "compression": compressed.report,
    }


def info(compressed: Compressed | Imported) -> ModelInfo:
    """What the compressed or imported model is, for a manifest."""
    shape = compressed.model.config
    return ModelInfo(
        source=Path(compressed.original.source).name,
        parameters=parameters(compressed.model),
        dim=shape.dim,
        heads=shape.heads,
        ffn=shape.ffn,
        vocab=shape.vocab_size,
        strides=shape.strides,
    )


def forget(compressed: Compressed, out: Path) -> None:
    """Remove the state of a distillation whose result is written."""
    if "distill" in compressed.report:
        remove(_partial(out))


def dev(located: Located, model: Network) -> Dataset:
    """The recipe's dev texts, or the sample that ships with edgelm."""
    name, task = located.recipe.data.dev, task_of(model)
    if name is None:
        return Dataset(task.sample(data.sample().texts), None)
    return data.examples(located.path(name), task)


def calibration(located: Located, compressed: Compressed | Imported) -> Rows | None:
    """Token ids of the texts to calibrate on: the training texts, or else the dev texts; None where there are none."""
    name = located.recipe.data.train or located.recipe.data.dev
    if name is None:
        return None
    task, pad = task_of(compressed.model), compressed.model.config.pad_token_id
    texts = data.examples(located.path(name), task)
    cut = Tokenizer(compressed.tokenizer, max_tokens=compressed.max_tokens, pad_token_id=pad, tell=False)
    return [window.ids for windows in task.exam(cut, texts.texts, texts.gold).windows for window in windows]


def _limit(model: Encoder, wanted: Export | None) -> int:
    """The longest input: one limit for a bundle, so that a text has the same answer on every engine.

    Raises:
        RecipeError: a length was asked for that the model has no positions for.
    """
    most = model.config.max_positions
    if wanted is None:
        return most
    if max(wanted.lengths) > most and wanted.lengths != LENGTHS:
        raise RecipeError(
            f"export.lengths: {max(wanted.lengths)} tokens are beyond the model's {most} positions; "
            f"expected lengths up to {most}"
        )
    return min(most, max(wanted.lengths))


def _hashes(located: Located) -> dict[str, Any]:
    """SHA-256 of the files of ``data``, by its keys; where they lie is nobody else's business."""
    given = located.recipe.data
    found = {key: data.sha256(located.path(name)) for key, name in (("train", given.train), ("dev", given.dev)) if name}
    return found | {"unlabelled": [data.sha256(located.path(name)) for name in given.unlabelled]}


def _pruning(plan: Recipe) -> Prune:
    """How to prune, with the widths that the device's kernels like where the recipe says nothing of them."""
    config = plan.prune or Prune()
    if config.multiple_of is not None:
        return config
    device = devices.load(plan.export.device if plan.export else detect())
    return msgspec.structs.replace(config, multiple_of=device.width_multiple)


def _train(located: Located, original: Checkpoint) -> Dataset:
    """The texts to compress on.

    Raises:
        DataError: they are blank, or in a language that the vocabulary is not of.
    """
    name, task = located.recipe.data.train, original.model.config.task
    if task != "text-classification":
        raise RecipeError(
            f"{original.source}: compression is for text-classification, not for {task}: export it as it is"
        )
    if original.model.config.strides:
        raise RecipeError(f"{original.source}: its layers have strides already: compress what it was made of")
    if name is None:
        raise RecipeError("compression needs texts: expected data.train (JSON lines with 'text', best with 'label')")
    path = located.path(name)
    found = data.read(path, original.model.config.labels)
    if not any(text.strip() for text in found.texts):
        raise DataError(f"{path}: expected texts with words, found {len(found.texts)} that are blank")
    tokenizer = Tokenizer(
        original.tokenizer, max_tokens=original.model.config.max_positions, pad_token_id=0, tell=False
    )
    known = tokenizer.known(found.texts[:_LOOKED_AT])
    if known < _KNOWN:
        raise DataError(
            f"{path}: {100 * known:.0f} in 100 words are whole in the model's vocabulary, expected {100 * _KNOWN:.0f} "
            "or more: give texts in the language that the model was trained on"
        )
    return _longer(found, located.recipe.data.min_tokens, original, path)


def _longer(texts: Dataset, least: int, original: Checkpoint, path: Path) -> Dataset:
    """Those with so many tokens or more."""
    if not least:
        return texts
    rows = _rows(original.model, original.tokenizer, original.model.config.max_positions, texts.texts)
    kept = [index for index, row in enumerate(rows) if len(row) >= least]
    if not kept:
        raise DataError(f"{path}: expected texts of {least} tokens or more, found none: set data.min_tokens lower")
    gold = texts.gold[kept] if texts.gold is not None else None
    return Dataset(tuple(texts.texts[index] for index in kept), gold)


def _judges(located: Located, labels: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]] | None:
    """The dev texts by which distillation is ended, with their classes; None if it is not."""
    if located.recipe.distill is None or located.recipe.distill.patience is None:
        return None
    texts = data.read(located.path(located.recipe.data.dev), labels) if located.recipe.data.dev else None
    if texts is None or texts.gold is None:
        raise RecipeError("distill.patience needs data.dev: expected JSON lines with 'text' and 'label'")
    return texts.texts, texts.gold


def _partial(out: Path) -> Path:
    """Where it is kept how far distillation is, until ``out`` is written."""
    return out.parent / f"{out.name}.partial"


def _state(out: Path, original: Checkpoint, model: Encoder, *wanted: Any) -> State:
    """Of a job that is told by all that its result depends on: what goes in, what is wanted of it, and edgelm itself.

    Of the pruned model it is the shape alone: its weights follow from the rest, to the last bit only on one machine.
    """
    return State(
        _partial(out),
        job(version("edgelm"), original.tokenizer, original.model.state_dict(), model.config, *wanted),
    )


def _distillation_texts(located: Located, config: Distill, train: Dataset, original: Checkpoint) -> list[str]:
    """What is distilled on: the training texts, those without labels, and the new ones made of both."""
    names = located.recipe.data.unlabelled
    texts = [*train.texts, *(text for name in names for text in data.read_texts(located.path(name)))]
    return texts + augmented(original.model, original.tokenizer, texts, config.augment, seed=config.seed)


def _rows(model: Encoder, tokenizer: bytes, limit: int, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    return Tokenizer(tokenizer, max_tokens=limit, pad_token_id=model.config.pad_token_id).encode(list(texts))
