"""Checkpoints: Hugging Face folders or hub ids in, the same kind of folder out.

A compressed checkpoint keeps DistilBERT's tensor names. Where every layer has the same shape and all heads, its
``config.json`` is a plain DistilBERT's and transformers loads it; elsewhere ``model_type`` is ``edgelm`` and
``n_heads`` and ``hidden_dim`` are lists, one entry a layer. Weights are written as fp16.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from edgelm.errors import CheckpointError
from edgelm.model import Encoder, EncoderConfig

__all__ = ["Checkpoint", "check_target", "read", "write"]

# ours -> DistilBERT's; {i} is the layer
DISTILBERT = {
    "embeddings.word": "distilbert.embeddings.word_embeddings",
    "embeddings.position": "distilbert.embeddings.position_embeddings",
    "embeddings.norm": "distilbert.embeddings.LayerNorm",
    "layers.{i}.attention.q": "distilbert.transformer.layer.{i}.attention.q_lin",
    "layers.{i}.attention.k": "distilbert.transformer.layer.{i}.attention.k_lin",
    "layers.{i}.attention.v": "distilbert.transformer.layer.{i}.attention.v_lin",
    "layers.{i}.attention.out": "distilbert.transformer.layer.{i}.attention.out_lin",
    "layers.{i}.attention_norm": "distilbert.transformer.layer.{i}.sa_layer_norm",
    "layers.{i}.ffn.up": "distilbert.transformer.layer.{i}.ffn.lin1",
    "layers.{i}.ffn.down": "distilbert.transformer.layer.{i}.ffn.lin2",
    "layers.{i}.ffn_norm": "distilbert.transformer.layer.{i}.output_layer_norm",
    "pooler": "pre_classifier",
    "classifier": "classifier",
}
# ours -> BERT's
BERT = {
    "embeddings.word": "bert.embeddings.word_embeddings",
    "embeddings.position": "bert.embeddings.position_embeddings",
    "embeddings.norm": "bert.embeddings.LayerNorm",
    "layers.{i}.attention.q": "bert.encoder.layer.{i}.attention.self.query",
    "layers.{i}.attention.k": "bert.encoder.layer.{i}.attention.self.key",
    "layers.{i}.attention.v": "bert.encoder.layer.{i}.attention.self.value",
    "layers.{i}.attention.out": "bert.encoder.layer.{i}.attention.output.dense",
    "layers.{i}.attention_norm": "bert.encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.ffn.up": "bert.encoder.layer.{i}.intermediate.dense",
    "layers.{i}.ffn.down": "bert.encoder.layer.{i}.output.dense",
    "layers.{i}.ffn_norm": "bert.encoder.layer.{i}.output.LayerNorm",
    "pooler": "bert.pooler.dense",
    "classifier": "classifier",
}
NAMES = {"distilbert": DISTILBERT, "bert": BERT, "edgelm": DISTILBERT}
WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """A model and its tokenizer.

    Attributes:
        model: the encoder, fp32, in evaluation mode.
        tokenizer: content of ``tokenizer.json``.
        source: the folder or hub id it was read from.
        bytes: size of the weights as stored.
    """

    model: Encoder
    tokenizer: bytes
    source: str
    bytes: int


def read(source: str | Path) -> Checkpoint:
    """Read a DistilBERT, BERT or compressed checkpoint with a sequence-classification head.

    Args:
        source: a folder, or a hub id such as ``org/name``.

    Raises:
        CheckpointError: it is missing, damaged, of another architecture, or without such a head.
    """
    folder = Path(source)
    if not folder.is_dir() and not _is_hub_id(str(source)):
        raise CheckpointError(f"{source}: no such folder; expected a Hugging Face checkpoint folder or a hub id")
    raw = _raw_config(source)
    kind = raw.get("model_type")
    if kind not in NAMES:
        raise CheckpointError(f"{source}: architecture '{kind}' is not supported; expected one of {', '.join(NAMES)}")
    _check_head(raw, source)
    config = _config(raw, source)
    theirs, size = _tensors(folder, str(source), str(kind))
    model = Encoder(config)
    try:
        model.load_state_dict(_rename(theirs, str(kind), len(config.heads)))
    except (KeyError, RuntimeError) as exc:
        detail = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{source}: the weights do not fit config.json: {detail}") from exc
    return Checkpoint(model.eval(), _tokenizer(folder, str(source)), str(source), size)


def check_target(folder: Path) -> None:
    """Refuse a folder that a checkpoint must not or cannot replace; ask before hours of work, not after.

    Raises:
        CheckpointError: it holds files that are not a checkpoint's, or the folder it is to stand in is not there.
    """
    if not folder.absolute().parent.is_dir():
        raise CheckpointError(f"{folder}: the folder it is to stand in is not there; make it first")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; expected a name for a new folder")
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.exists() else []
    if others:
        raise CheckpointError(f"{folder}: would be replaced, but holds more than a checkpoint: {', '.join(others[:3])}")


def write(folder: Path, model: Encoder, tokenizer: bytes) -> None:
    """Write a compressed checkpoint into an existing, empty folder, with fp16 weights.

    Args:
        folder: where; see ``bundle.staged_dir`` for writing without a half-written output.
        model: the encoder.
        tokenizer: content of ``tokenizer.json``.
    """
    config = _to_raw(model.config)
    pairs = _pairs(model.state_dict(), DISTILBERT, len(model.config.heads))
    tensors = {theirs: tensor.to(torch.float16).contiguous() for theirs, tensor in pairs}
    # not save_file, which leaves a file that its owner alone can read
    (folder / WEIGHTS).write_bytes(serialized(tensors, metadata={"format": "pt"}))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(tokenizer)
    described = {"tokenizer_class": "DistilBertTokenizer", "model_max_length": model.config.max_positions}
    lower = (json.loads(tokenizer).get("normalizer") or {}).get("lowercase")
    described |= {} if lower is None else {"do_lower_case": lower}
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _is_hub_id(source: str) -> bool:
    """Hub ids are ``name`` or ``org/name``; a path that starts with a dot or a slash, or is deeper, is not one."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source) is not None


def _raw_config(source: str | Path) -> dict[str, Any]:
    path = Path(source) / "config.json"
    if path.is_file():
        try:
            raw: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError as exc:
            raise CheckpointError(f"{path}: not readable as JSON: {exc}") from exc
        return raw
    if Path(source).is_dir():
        raise CheckpointError(f"{source}: holds no config.json; expected a Hugging Face checkpoint folder")
    try:
        config = AutoConfig.from_pretrained(str(source))
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{source}: no such folder, and not to be had from the hub") from exc
    return dict(config.to_dict())


def _check_head(raw: dict[str, Any], source: str | Path) -> None:
    architectures = raw.get("architectures") or ["none"]
    if not str(architectures[0]).endswith("ForSequenceClassification"):
        raise CheckpointError(
            f"{source}: expected a sequence-classification head, found {architectures[0]}; fine-tune it for that first"
        )
    problem = raw.get("problem_type")
    labels = raw.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}
    if problem in ("regression", "multi_label_classification") or len(labels) < 2:
        raise CheckpointError(f"{source}: expected one label of two or more, found {problem or 'a regression'}")


def _config(raw: dict[str, Any], source: str | Path) -> EncoderConfig:
    """Our config from DistilBERT's keys, or BERT's."""
    labels = raw.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    if raw.get("activation", raw.get("hidden_act", "gelu")) != "gelu":
        raise CheckpointError(f"{source}: activation '{raw.get('activation', raw.get('hidden_act'))}': expected gelu")
    try:
        dim = int(raw["dim"] if "dim" in raw else raw["hidden_size"])
        layers = int(raw["n_layers"] if "n_layers" in raw else raw["num_hidden_layers"])
        heads = raw["n_heads"] if "n_heads" in raw else raw["num_attention_heads"]
        ffn = raw["hidden_dim"] if "hidden_dim" in raw else raw["intermediate_size"]
        return EncoderConfig(
            vocab_size=int(raw["vocab_size"]),
            dim=dim,
            head_dim=int(raw.get("head_dim") or dim // heads),
            heads=tuple(heads) if isinstance(heads, list) else (int(heads),) * layers,
            ffn=tuple(ffn) if isinstance(ffn, list) else (int(ffn),) * layers,
            max_positions=int(raw["max_position_embeddings"]),
            labels=names,
            head_activation=raw.get("head_activation", "tanh" if raw["model_type"] == "bert" else "relu"),
            layer_norm_eps=float(raw.get("layer_norm_eps", 1e-12)),
            pad_token_id=int(raw.get("pad_token_id") or 0),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{source}: config.json is not complete: {exc!r}") from exc


def _to_raw(config: EncoderConfig) -> dict[str, Any]:
    """The inverse of ``_config``: a plain DistilBERT's config wherever transformers can express the shape."""
    uniform = len(set(config.heads)) == 1 and len(set(config.ffn)) == 1
    plain = (
        uniform
        and config.heads[0] * config.head_dim == config.dim
        and config.ffn[0] > 0
        and (config.head_activation, config.layer_norm_eps) == ("relu", 1e-12)
    )
    shape = (
        {"n_heads": config.heads[0], "hidden_dim": config.ffn[0]}
        if plain
        else {
            "n_heads": list(config.heads),
            "hidden_dim": list(config.ffn),
            "head_dim": config.head_dim,
            "head_activation": config.head_activation,
            "layer_norm_eps": config.layer_norm_eps,
        }
    )
    return {
        "model_type": "distilbert" if plain else "edgelm",
        "architectures": ["DistilBertForSequenceClassification" if plain else "EdgelmForSequenceClassification"],
        "activation": "gelu",
        "dim": config.dim,
        "n_layers": len(config.heads),
        **shape,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "pad_token_id": config.pad_token_id,
        "problem_type": "single_label_classification",
        "dtype": "float16",
        "id2label": {str(i): label for i, label in enumerate(config.labels)},
        "label2id": {label: i for i, label in enumerate(config.labels)},
    }


def _tensors(folder: Path, source: str, kind: str) -> tuple[dict[str, Tensor], int]:
    """Weights under the names of the checkpoint's own architecture, and their size as stored."""
    path = folder / WEIGHTS
    try:
        if kind == "edgelm":
            return load_file(path), path.stat().st_size
        with _quiet():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True
            )
    except (SafetensorError, OSError, ValueError, RuntimeError) as exc:
        detail = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{source}: the weights cannot be read (cut short, or not there?): {detail}") from exc
    if info["missing_keys"]:
        raise CheckpointError(f"{source}: weights are missing: {', '.join(sorted(info['missing_keys'])[:3])}")
    size = path.stat().st_size if path.is_file() else sum(p.numel() * 4 for p in model.parameters())
    return dict(model.state_dict()), size


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers, and torchao if it is there, from reports of their own: what matters of them is raised here."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    others = {name: logging.getLogger(name).level for name in ("torchao", "torch.utils._pytree")}
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    for name in others:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        for name, level in others.items():
            logging.getLogger(name).setLevel(level)


def _pairs(ours: dict[str, Tensor], names: dict[str, str], layers: int) -> list[tuple[str, Tensor]]:
    """(their name, tensor) for each of our tensors."""
    table = {a.format(i=i): b.format(i=i) for a, b in names.items() for i in range(layers)}
    return [(f"{table[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}", ours[name]) for name in ours]


def _rename(theirs: dict[str, Tensor], kind: str, layers: int) -> dict[str, Tensor]:
    """Their tensors under our names. BERT's token-type row 0 is added to every position: only type 0 is ever used."""
    table = {b.format(i=i): a.format(i=i) for a, b in NAMES[kind].items() for i in range(layers)}
    ours = {}
    for name, tensor in theirs.items():
        module, _, leaf = name.rpartition(".")
        if module in table:
            ours[f"{table[module]}.{leaf}"] = tensor.to(torch.float32)
    if kind == "bert":
        ours["embeddings.position.weight"] = (
            ours["embeddings.position.weight"] + theirs["bert.embeddings.token_type_embeddings.weight"][0]
        )
    return ours


def _tokenizer(folder: Path, source: str) -> bytes:
    path = folder / "tokenizer.json"
    if path.is_file():
        return path.read_bytes()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as exc:
        raise CheckpointError(f"{source}: holds neither tokenizer.json nor a vocabulary to make one from") from exc
    content: str = tokenizer.backend_tokenizer.to_str()
    return content.encode()
