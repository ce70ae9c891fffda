"""Vocabulary trimming: the word embeddings are the larger half of a pruned encoder, and a task uses few of its rows.

Kept are the pieces that occur in the given texts, the special tokens, and single characters with their continuation.
A piece that goes leaves its name behind, for the row of the kept piece that is most like it: "tyres" is read as
"tires", where it would else be cut into "t", "##y", "##res". What is like no other piece is cut into smaller ones.
WordPiece takes the longest match, so a word whose pieces all have a row of their own or a shared one is cut as before,
and none becomes ``[UNK]`` that was not before if its characters were kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgelm.errors import CheckpointError, RecipeError
from edgelm.model import Encoder
from edgelm.recipe import Vocab

__all__ = ["VocabReport", "directions", "trim"]


@dataclass(frozen=True)
class VocabReport:
    """What trimming did.

    Attributes:
        rows: of the word embeddings (before, after).
        unseen: kept rows that no given text uses: single characters and special tokens.
        shared: pieces that use the row of another.
    """

    rows: tuple[int, int]
    unseen: int
    shared: int


def trim(
    model: Encoder, tokenizer: bytes, config: Vocab, rows: Sequence[NDArray[np.int32]]
) -> tuple[Encoder, bytes, VocabReport]:
    """Trim the vocabulary of a copy of a model.

    Args:
        model: the encoder; it is not changed.
        tokenizer: content of its ``tokenizer.json``; WordPiece.
        config: what is kept.
        rows: token ids of the texts that pieces are counted on.

    Returns:
        The model with fewer embedding rows, the new ``tokenizer.json``, in which several pieces may have one id, and a
        report. Ids keep their order.

    Raises:
        CheckpointError: the tokenizer is not WordPiece.
        RecipeError: what is always kept does not fit into ``config.rows``.
    """
    described: dict[str, Any] = json.loads(tokenizer)
    kind = described.get("model", {}).get("type")
    if kind != "WordPiece":
        raise CheckpointError(f"vocabulary trimming expects a WordPiece tokenizer, found {kind}")
    counts = Counter(int(i) for row in rows for i in row)
    vocab: dict[str, int] = described["model"]["vocab"]
    special = {token["content"] for token in described["added_tokens"]}
    prefix = described["model"]["continuing_subword_prefix"]
    always = {piece for piece in vocab if piece in special or _kept(piece.removeprefix(prefix), config)}
    kept = sorted(_chosen(vocab, always, counts, config), key=vocab.__getitem__)
    new = {vocab[piece]: index for index, piece in enumerate(kept)}
    trimmed = _with_rows(model, [vocab[piece] for piece in kept], new)
    shared = _shared(model, vocab, kept, special, config.share, prefix)
    described["model"]["vocab"] = {piece: new[vocab[shared.get(piece, piece)]] for piece in (*kept, *shared)}
    for token in described["added_tokens"]:
        token["id"] = new[token["id"]]
    described["post_processor"] = _renumbered(described["post_processor"], new)
    report = VocabReport((len(vocab), len(kept)), sum(not counts[vocab[piece]] for piece in kept), len(shared))
    return trimmed, json.dumps(described, ensure_ascii=False).encode(), report


@torch.no_grad()
def directions(model: Encoder) -> Tensor:
    """Word embeddings as unit vectors, without their mean, a direction they all share [Mu 2018, "All-but-the-Top"].

    Float32, shape (vocabulary, dim): their products are cosines, which say how like words are.
    """
    weight = model.embeddings.word.weight.float()
    return functional.normalize(weight - weight.mean(0), dim=-1)


def _chosen(vocab: dict[str, int], always: set[str], counts: Counter[int], config: Vocab) -> list[str]:
    """The pieces to keep: some always, then the most frequent, and of equally frequent ones those of lower id."""
    room = len(vocab) if config.rows is None else config.rows - len(always)
    if room < 0:
        raise RecipeError(
            f"vocab.rows: {config.rows} are fewer than the {len(always)} of special tokens and single characters; "
            'set it higher, or vocab.characters = "ascii"'
        )
    frequent = sorted(
        (piece for piece, index in vocab.items() if counts[index] >= config.min_count and piece not in always),
        key=lambda piece: (-counts[vocab[piece]], vocab[piece]),
    )
    return [*always, *frequent[:room]]


@torch.no_grad()
def _shared(
    model: Encoder, vocab: dict[str, int], kept: Sequence[str], special: Container[str], least: float, prefix: str
) -> dict[str, str]:
    """For each piece that goes, the kept one whose row it uses, if one is like it; begins of words among begins."""
    if least == 1:
        return {}
    alike = directions(model)
    found, gone = dict[str, str](), set(vocab).difference(kept)
    for continued in (False, True):
        ours, theirs = (
            sorted(
                (p for p in some if p.startswith(prefix) == continued and not _never(p, special)), key=vocab.__getitem__
            )
            for some in (gone, kept)
        )
        if not theirs:
            continue
        targets = alike[[vocab[piece] for piece in theirs]]
        for piece in ours:
            cosine, best = (alike[vocab[piece]] @ targets.T).max(0)
            if cosine >= least:
                found[piece] = theirs[int(best)]
    return found


def _never(piece: str, special: Container[str]) -> bool:
    """Whether no text has the piece: it is special, or a placeholder such as ``[unused7]``, cut at its bracket."""
    return piece in special or (piece.startswith("[") and len(piece) > 1)


def _kept(characters: str, config: Vocab) -> bool:
    """Whether a piece is a single character that is kept however rare it is."""
    return len(characters) == 1 and (config.characters == "all" or characters.isascii())


def _with_rows(model: Encoder, old: list[int], new: dict[int, int]) -> Encoder:
    """A copy of the model with only these rows of the word embeddings."""
    pad = new[model.config.pad_token_id]
    trimmed = Encoder(replace(model.config, vocab_size=len(old), pad_token_id=pad))
    state = model.state_dict()
    state["embeddings.word.weight"] = state["embeddings.word.weight"][torch.tensor(old)]
    trimmed.load_state_dict(state)
    return trimmed.eval()


def _renumbered(processor: Any, new: dict[int, int]) -> Any:
    """The post-processor with new ids: ``TemplateProcessing`` lists them under ``ids``, ``Bert`` as [token, id]."""
    if processor is None or processor["type"] not in ("TemplateProcessing", "BertProcessing"):
        return processor
    if processor["type"] == "BertProcessing":
        return processor | {key: [processor[key][0], new[processor[key][1]]] for key in ("sep", "cls")}
    tokens = {k: v | {"ids": [new[i] for i in v["ids"]]} for k, v in processor["special_tokens"].items()}
    return processor | {"special_tokens": tokens}
