"""Tiny random models and a tiny tokenizer: real architectures, seconds to run, nothing downloaded."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from edgelm.model import Encoder, EncoderConfig

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "turn",
    "the",
    "light",
    "on",
    "off",
    "play",
    "music",
    "what",
    "is",
    "time",
    "it",
    "in",
    "paris",
    "##s",
    "##ing",
]
LABELS = ("lights", "music", "time")
TEXTS = (
    "turn the light on",
    "turn off the lights",
    "play music",
    "play the music in paris",
    "what time is it",
    "what is the time in paris",
    "is it on",
    "",
)


def tokenizer_json() -> bytes:
    """A WordPiece tokenizer with the words above, every ASCII letter and digit, and their continuations."""
    letters = [*string.ascii_lowercase, *string.digits, "?", "!", ".", ",", "'"]
    pieces = dict.fromkeys([*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters)])
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(SPECIAL)
    return made.to_str().encode()


def vocab_size() -> int:
    return Tokenizer.from_str(tokenizer_json().decode()).get_vocab_size()


def distilbert(folder: Path, **changes: Any) -> Path:
    """A random DistilBERT, saved by transformers, with weights large enough that the classes differ."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": vocab_size(),
        "dim": 32,
        "n_layers": 3,
        "n_heads": 4,
        "hidden_dim": 48,
    } | changes
    config = DistilBertConfig(**settings, max_position_embeddings=64, id2label=dict(enumerate(LABELS)))
    return _save(DistilBertForSequenceClassification(config), folder)


def bert(folder: Path) -> Path:
    """A random BERT, saved by transformers."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=64,
        id2label=dict(enumerate(LABELS)),
    )
    return _save(BertForSequenceClassification(config), folder)


def encoder(heads: tuple[int, ...] = (4, 2, 3), ffn: tuple[int, ...] = (48, 16, 32)) -> Encoder:
    """A random encoder of ours with widths of its own in every layer."""
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=vocab_size(), dim=32, head_dim=8, heads=heads, ffn=ffn, max_positions=64, labels=LABELS
    )
    model = Encoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def ids(batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Random token ids, int64, shape (batch, tokens), that begin with [CLS]."""
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(5, vocab_size(), (batch, tokens)))
    drawn[:, 0] = 2
    return drawn


def _save(model: torch.nn.Module, folder: Path) -> Path:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "LayerNorm" not in name:
                parameter.mul_(8.0)
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    return folder
