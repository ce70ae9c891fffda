"""What a model of another framework takes and gives: its inputs by their names, the rest by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from edgelm.errors import CheckpointError, DataError
from edgelm.exporters.foreign import Output
from edgelm.exporters.foreign.companions import Companions
from edgelm.heads import Head, PoolingHead
from edgelm.model import EncoderConfig
from edgelm.runtimes import Ids, Logits

__all__ = ["meanings", "output", "output_name", "tried"]

_INPUTS = {
    "input_ids": ("input_ids", "token_ids", "input_word_ids"),
    "attention_mask": ("attention_mask", "padding_mask", "input_mask"),
    "token_type_ids": ("token_type_ids", "segment_ids", "input_type_ids"),
}
"""Our name of an input, and what Hugging Face, KerasHub and TensorFlow Hub call it. Token types may be missing; all of
them are 0."""

Answer = Callable[[Ids, Ids], Logits]


def meanings(found: Iterable[str], source: str) -> dict[str, str]:
    """Our name of each input, by theirs.

    Raises:
        CheckpointError: token ids or mask are missing, or there are other inputs.
    """
    known = {theirs: ours for ours, names in _INPUTS.items() for theirs in names}
    names = list(found)
    ours = [known.get(name, "") for name in names]
    if "" in ours or len(set(ours)) < len(ours) or not {"input_ids", "attention_mask"} <= set(ours):
        expected = ", ".join("/".join(same) for same in _INPUTS.values())
        raise CheckpointError(
            f"{source}: expected the inputs {expected} (the last may be missing), found {', '.join(names) or 'none'}"
        )
    return dict(zip(names, ours, strict=True))


def output_name(beside: Companions) -> str:
    """What the output is called in every artifact."""
    return PoolingHead.OUTPUT if beside.task == "feature-extraction" else Head.OUTPUT


def output(names: Sequence[str], wanted: str, source: str) -> str:
    """Which output to take: the only one, or the one of the name wanted.

    Raises:
        CheckpointError: there is none, or several of other names.
    """
    if len(names) != 1 and wanted not in names:
        raise CheckpointError(
            f"{source}: expected one output, or one named {wanted}; found {', '.join(names) or 'none'}"
        )
    return wanted if wanted in names else names[0]


def tried(
    answer: Answer, beside: Companions, lengths: Sequence[int], source: str
) -> tuple[EncoderConfig, Output, tuple[int, ...]]:
    """Run a model to find out what it takes and gives.

    Args:
        answer: see ``Foreign.answer``.
        beside: what the model should fit.
        lengths: token lengths that are wanted.
        source: the model, for errors.

    Returns:
        Its shape, as far as it is known (the vocabulary is the tokenizer's; ``dim`` is 0, ``heads`` and ``ffn`` are
        empty); its output; and the lengths that it takes.

    Raises:
        CheckpointError: it takes none of the lengths, or its output is not that of its task.
        DataError: another number of labels, or a tokenizer with more ids than the model knows.
    """
    taken = _taken(answer, sorted(set(lengths)), source)
    ids = np.arange(4 * min(8, max(taken)), dtype=np.int32).reshape(4, -1) % beside.vocab
    ids[0, -1] = beside.vocab - 1
    try:
        found = answer(ids, np.ones_like(ids))
    except Exception as exc:  # frameworks raise types of their own, without a common base
        raise DataError(
            f"{source}: does not take the tokenizer's last id, {beside.vocab - 1} ({_reason(exc)}): give the tokenizer "
            "that the model was trained with"
        ) from exc
    given = _output(found, ids.shape, beside, source)
    config = EncoderConfig(
        vocab_size=beside.vocab,
        dim=0,
        head_dim=0,
        heads=(),
        ffn=(),
        max_positions=max(taken),
        labels=beside.labels,
        pad_token_id=beside.pad_token_id,
        task=beside.task,
        multi_label=beside.multi_label,
        mask_token_id=beside.mask_token_id,
    )
    return config, given, taken


def _taken(answer: Answer, lengths: Sequence[int], source: str) -> tuple[int, ...]:
    """The lengths up to the longest that the model runs with."""
    reason = "no length is asked for"
    for count in range(len(lengths), 0, -1):
        ids = np.zeros((1, lengths[count - 1]), np.int32)
        try:
            answer(ids, np.ones_like(ids))
        except Exception as exc:  # as above
            reason = _reason(exc)
        else:
            return tuple(lengths[:count])
    raise CheckpointError(f"{source}: does not run with {min(lengths, default=0)} tokens: {reason}")


def _output(found: Logits, ids: tuple[int, ...], beside: Companions, source: str) -> Output:
    task, by_token = beside.task, beside.task in ("token-classification", "question-answering", "fill-mask")
    if found.dtype != np.float32 or found.shape[:-1] != (ids if by_token else ids[:1]):
        expected = "(batch, tokens, …)" if by_token else "(batch, …)"
        raise CheckpointError(
            f"{source}: expected of {task} float32, shape {expected}; found {found.dtype}, shape {found.shape} for "
            f"{ids[0]} rows of {ids[1]} tokens"
        )
    width, classes = found.shape[-1], 2 if task == "question-answering" else len(beside.labels)
    if classes and width != classes:
        raise DataError(f"{source}: its output has {width} classes, found {classes} labels for it")
    if task == "fill-mask" and width < beside.vocab:
        raise DataError(f"{source}: its output has {width} pieces, fewer than the tokenizer's {beside.vocab}")
    if beside.labels and not beside.multi_label and (found >= 0).all() and abs(found.sum(-1) - 1).max() < 1e-5:
        raise CheckpointError(
            f"{source}: expected logits, found probabilities (every row sums to 1): take off the softmax at its end"
        )
    return Output(output_name(beside), width, by_token=by_token)


def _reason(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200]
