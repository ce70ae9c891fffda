"""Tiny random models and a tiny tokenizer: real architectures, seconds to run, nothing downloaded."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:  # torch is imported by what makes models alone: tests read texts and tokenizers on devices too
    import torch

    from edgelm.model import Encoder

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
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(SPECIAL)
    made.decoder = decoders.WordPiece()
    return made.to_str().encode()


def byte_level_json() -> bytes:
    """A byte-level BPE tokenizer as RoBERTa's, learned from the texts below."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return made.to_str().encode()


def vocab_size() -> int:
    return Tokenizer.from_str(tokenizer_json().decode()).get_vocab_size()


def distilbert(folder: Path, **changes: Any) -> Path:
    """A random DistilBERT, saved by transformers, with weights large enough that the classes differ."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

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
    import torch
    from transformers import BertConfig, BertForSequenceClassification

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


HEADS = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
    "feature-extraction": "Model",
}
TAGS = ("O", "B-place", "I-place", "B-thing", "I-thing")


def saved(kind: str, task: str, folder: Path, content: bytes | None = None, **changes: Any) -> Path:
    """A random DistilBERT, BERT or RoBERTa for a task, saved by transformers, with a tokenizer.

    Args:
        kind: ``distilbert``, ``bert`` or ``roberta``.
        task: as transformers names its pipelines.
        folder: where.
        content: of its ``tokenizer.json``; of a tiny one if not given.
        changes: of its configuration.
    """
    import torch
    import transformers
    from transformers import BertConfig, DistilBertConfig, RobertaConfig

    torch.manual_seed(0)
    content = content or (byte_level_json() if kind == "roberta" else tokenizer_json())
    labels = dict(enumerate({"token-classification": TAGS, "question-answering": LABELS[:2]}.get(task, LABELS)))
    shape: dict[str, Any] = {"vocab_size": Tokenizer.from_str(content.decode()).get_vocab_size(), "id2label": labels}
    config: Any
    if kind == "distilbert":
        config = DistilBertConfig(
            **shape, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64, **changes
        )
    else:
        shape |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        special: dict[str, Any] = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1}
        config = (
            RobertaConfig(**shape, **special, max_position_embeddings=66, layer_norm_eps=1e-5, **changes)
            if kind == "roberta"
            else BertConfig(**shape, max_position_embeddings=64, **changes)
        )
    family = {"distilbert": "DistilBert", "bert": "Bert", "roberta": "Roberta"}[kind]
    made = getattr(transformers, f"{family}{HEADS[task]}")(config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "LayerNorm" not in name and "layer_norm" not in name:
                parameter.normal_(0.0, 0.02 if "embeddings" in name else 0.3)
    made.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(content)
    marks = ("<pad>", "<unk>", "<s>", "</s>", "<mask>") if kind == "roberta" else SPECIAL
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 64,
        **dict(zip(names, marks, strict=True)),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


def encoder(
    heads: tuple[int, ...] = (4, 2, 3), ffn: tuple[int, ...] = (48, 16, 32), strides: tuple[int, ...] = ()
) -> Encoder:
    """A random encoder of ours with widths of its own in every layer."""
    import torch

    from edgelm.model import Encoder, EncoderConfig

    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=vocab_size(),
        dim=32,
        head_dim=8,
        heads=heads,
        ffn=ffn,
        max_positions=64,
        labels=LABELS,
        strides=strides,
    )
    model = Encoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def ids(batch: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Random token ids, int64, shape (batch, tokens), that begin with [CLS]."""
    import torch

    drawn = torch.from_numpy(np.random.default_rng(seed).integers(5, vocab_size(), (batch, tokens)))
    drawn[:, 0] = 2
    return drawn


def _save(model: torch.nn.Module, folder: Path) -> Path:
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "LayerNorm" not in name:
                parameter.mul_(8.0)
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "tokenizer.json").write_bytes(tokenizer_json())
    return folder
