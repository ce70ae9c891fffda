"""Models that are not ours: what they offer in place of weights, and what their inputs mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgelm.errors import CheckpointError, DataError, MissingExtra, RecipeError
from edgelm.exporters import Tell, log
from edgelm.exporters.companions import Companions
from edgelm.manifest import Device, Format, Precision
from edgelm.model import EncoderConfig
from edgelm.recipe import Export
from edgelm.runtimes import Ids, Logits

__all__ = ["INPUTS", "Foreign", "meanings", "narrowed", "read", "recognised", "shape", "words"]

INPUTS = {
    "input_ids": ("input_ids", "token_ids", "input_word_ids"),
    "attention_mask": ("attention_mask", "padding_mask", "input_mask"),
    "token_type_ids": ("token_type_ids", "segment_ids", "input_type_ids"),
}
"""Our name of an input, and what Hugging Face, KerasHub and TensorFlow Hub call it. Token types may be missing; texts
are single, so all of them are 0."""


class Foreign(Protocol):
    """A model that another framework runs."""

    @property
    def config(self) -> EncoderConfig:
        """Its shape; ``heads`` and ``ffn`` are empty, since they are not known."""

    @property
    def source(self) -> str:
        """The file or folder."""

    @property
    def size(self) -> int:
        """Of that, in bytes."""

    @property
    def parameters(self) -> int:
        """How many."""

    @property
    def tokenizer(self) -> bytes:
        """Content of ``tokenizer.json``."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Token lengths that it takes; empty when it takes any up to ``config.max_positions``."""

    def logits(self, input_ids: Ids) -> Logits:
        """What the framework itself answers to rows of one length, without padding: the truth for every variant.

        Args:
            input_ids: int32, shape (batch, tokens).

        Returns:
            float32, shape (batch, classes).
        """

    def plan(self, wanted: Export, device: Device) -> dict[Format, tuple[Precision, ...]]:
        """What to write: what is wanted, or of what the device prefers, all that can be made of this model.

        Raises:
            RecipeError: something that is wanted cannot be made of it.
        """

    def export(
        self, form: Format, precisions: Sequence[Precision], lengths: Sequence[int], *, tell: Tell = log
    ) -> dict[Precision, bytes]:
        """Write it in each precision; as ``edgelm.exporters.Exporter`` does with an encoder."""


def recognised(source: str | Path) -> bool:
    """Whether this is a model of TensorFlow: a file, or a folder with ``saved_model.pb``."""
    path = Path(source)
    return path.is_file() or (path / "saved_model.pb").is_file()


def read(source: Path, beside: Companions, lengths: Sequence[int]) -> Foreign:
    """Read a ``.keras`` file, a SavedModel folder or a ``.tflite`` file.

    Args:
        source: the model.
        beside: its tokenizer and labels.
        lengths: token lengths that are wanted of it.

    Raises:
        CheckpointError: it is none of these, is damaged, or takes other inputs.
        DataError: tokenizer or labels are not those of the model.
        MissingExtra: the packages to read it are not installed.
    """
    if source.suffix == ".tflite":
        from edgelm.exporters import tflite_file

        return tflite_file.read(source, beside, lengths)
    if source.suffix != ".keras" and not (source / "saved_model.pb").is_file():
        raise CheckpointError(
            f"{source}: expected a .keras or .tflite file, a SavedModel folder, or a Hugging Face checkpoint folder"
        )
    try:
        from edgelm.exporters import tensorflow
    except ModuleNotFoundError as exc:
        raise MissingExtra(f"{source.name}: reading a model of TensorFlow", "tensorflow") from exc
    return tensorflow.read(source, beside, lengths)


def meanings(found: Iterable[str], source: str) -> dict[str, str]:
    """Our name of each input, by theirs.

    Raises:
        CheckpointError: token ids or mask are missing, or there are other inputs.
    """
    known = {theirs: ours for ours, names in INPUTS.items() for theirs in names}
    names = list(found)
    ours = [known.get(name, "") for name in names]
    if "" in ours or len(set(ours)) < len(ours) or not {"input_ids", "attention_mask"} <= set(ours):
        expected = ", ".join("/".join(same) for same in INPUTS.values())
        raise CheckpointError(
            f"{source}: expected the inputs {expected} (the last may be missing), found {', '.join(names) or 'none'}"
        )
    return dict(zip(names, ours, strict=True))


def words(
    lookups: Iterable[tuple[str, str, Sequence[int]]], producers: Mapping[str, Sequence[str]]
) -> tuple[str, tuple[int, int]] | None:
    """The word embeddings: of the matrices that are looked up by what is computed from the token ids, the longest.

    Args:
        lookups: matrix, tensor that it is looked up by, and shape of the matrix.
        producers: of each tensor, the tensors that it is computed from; the ids are ``input_ids``.

    Returns:
        Name, rows and width of the matrix; None if there is none.
    """

    def from_ids(tensor: str) -> bool:
        seen, todo = set[str](), [tensor]
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo.extend(producers.get(one, ()))
        return "input_ids" in seen

    found = [(name, (shape[0], shape[1])) for name, by, shape in lookups if len(shape) == 2 and from_ids(by)]
    return max(found, key=lambda one: one[1][0], default=None)


def shape(
    source: str, beside: Companions, answers: Logits, table: tuple[int, int] | None, longest: int
) -> EncoderConfig:
    """The shape of a model, as far as it is known; refuses labels and tokenizers that are not the model's.

    Args:
        source: the model, for errors.
        beside: its tokenizer and labels.
        answers: to any rows.
        table: rows and width of the word embeddings, if it was found.
        longest: input in tokens.

    Raises:
        CheckpointError: its output is not that of a classifier.
        DataError: another number of labels, or more ids than the embeddings have rows.
    """
    if answers.ndim != 2 or answers.dtype.kind != "f":
        raise CheckpointError(
            f"{source}: expected logits, float, shape (batch, classes), found {answers.dtype}, shape {answers.shape}"
        )
    if (answers >= 0).all() and abs(answers.sum(-1) - 1).max() < 1e-5:
        raise CheckpointError(
            f"{source}: expected logits, found probabilities (every row sums to 1): take off the softmax at its end"
        )
    if answers.shape[1] != len(beside.labels):
        raise DataError(
            f"{source}: its output has {answers.shape[1]} classes, found {len(beside.labels)} labels for it"
        )
    if table is not None and beside.vocab > table[0]:
        raise DataError(
            f"{source}: the tokenizer gives ids up to {beside.vocab - 1}, but the embedding has {table[0]} rows: "
            "give the tokenizer that the model was trained with"
        )
    vocab, dim = table or (beside.vocab, 0)
    return EncoderConfig(
        vocab_size=vocab,
        dim=dim,
        head_dim=0,
        heads=(),
        ffn=(),
        max_positions=longest,
        labels=beside.labels,
        pad_token_id=beside.pad_token_id,
    )


def narrowed(
    can: dict[Format, tuple[Precision, ...]], default: Sequence[Format], wanted: Export, device: Device, source: str
) -> dict[Format, tuple[Precision, ...]]:
    """What to write of what can be written; see ``Foreign.plan``.

    Args:
        can: precisions that can be written, by format.
        default: formats to write when none is asked for.
        wanted: what is asked for.
        device: prefers some precisions.
        source: the model, for the error.

    Raises:
        RecipeError: what is asked for cannot be written, or none of what the device prefers.
    """
    found = dict[Format, tuple[Precision, ...]]()
    for form in wanted.formats or [form for form in device.formats if form in default]:
        precisions = wanted.precisions or tuple(one for one in device.precisions if one in can[form])
        lost = [one for one in precisions if one not in can[form]]
        if lost or not precisions:
            asked = ", ".join(lost) or f"what {device.name} prefers ({', '.join(device.precisions)})"
            raise RecipeError(f"{source}: of it, {form} is written as {' or '.join(can[form])}, not as {asked}")
        found[form] = precisions
    return found
