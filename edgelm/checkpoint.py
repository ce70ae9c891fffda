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
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from edgelm.architecture import ARCHITECTURES, encoder_config, task_of, to_ours, to_raw, to_theirs
from edgelm.errors import CheckpointError
from edgelm.manifest import TaskName
from edgelm.model import Encoder
from edgelm.recipe import Features

__all__ = ["Checkpoint", "check_target", "read", "write"]

CLASSES: dict[TaskName, Any] = {
    "text-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "question-answering": AutoModelForQuestionAnswering,
    "fill-mask": AutoModelForMaskedLM,
    "feature-extraction": AutoModel,
}

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


def read(source: str | Path, features: Features | None = None) -> Checkpoint:
    """Read a DistilBERT, BERT, RoBERTa or compressed checkpoint for the task that its head is for.

    Args:
        source: a folder, or a hub id such as ``org/name``.
        features: read it for ``feature-extraction``, whatever its head, and pool so; if not given, a model without a
            head is pooled as its own files for sentence-transformers say.

    Raises:
        CheckpointError: it is missing, damaged, or of another architecture or head.
    """
    folder = Path(source)
    if not folder.is_dir() and not _is_hub_id(str(source)):
        raise CheckpointError(f"{source}: no such folder; expected a Hugging Face checkpoint folder or a hub id")
    raw = _raw_config(source)
    kind = raw.get("model_type")
    if kind not in ARCHITECTURES:
        names = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"{source}: architecture '{kind}' is not supported; expected one of {names}")
    task: TaskName = "feature-extraction" if features else task_of(raw, source)
    tokenizer = _tokenizer(folder, str(source))
    parsed = _parsed(tokenizer, source)
    special = {str(token.content): index for index, token in parsed.get_added_tokens_decoder().items()}
    apart = any(parsed.encode("a", "a").type_ids)  # the second text of a pair has token types of its own, as BERT's
    pooled = (features or _pooling(folder, source)) if task == "feature-extraction" else Features(pooling="mean")
    config = encoder_config(
        raw,
        task,
        source,
        pooling=pooled.pooling,
        normalize=pooled.normalize,
        mask_token_id=special.get("[MASK]", special.get("<mask>")),
        separator_id=special.get("[SEP]") if apart else None,
    )
    most = max(parsed.get_vocab(with_added_tokens=True).values(), default=0)
    if most >= config.vocab_size:
        raise CheckpointError(
            f"{source}: token {most} of tokenizer.json is beyond the {config.vocab_size} rows of the embeddings: "
            "expected the tokenizer that the model was trained with"
        )
    theirs, size = _tensors(folder, str(source), str(kind), task)
    model = Encoder(config)
    if config.strides and not model.head.first_row:
        raise CheckpointError(
            f"{source}: its layers have strides, so it gives no state for each token: expected text-classification, or "
            "--pooling cls"
        )
    try:
        model.load_state_dict(to_ours(theirs, str(kind), config))
    except (KeyError, RuntimeError) as exc:
        detail = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{source}: the weights do not fit config.json: {detail}") from exc
    return Checkpoint(model.eval(), tokenizer, str(source), size)


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
    config = to_raw(model.config)
    named = to_theirs(model.state_dict(), len(model.config.heads))
    tensors = {theirs: tensor.to(torch.float16).contiguous() for theirs, tensor in named.items()}
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


def _pooling(folder: Path, source: str | Path) -> Features:
    """How a model without a head is pooled, from the files of sentence-transformers beside it.

    Raises:
        CheckpointError: there are none, or they say what is not supported.
    """
    try:
        steps = [step["type"].rpartition(".")[2] for step in json.loads((folder / "modules.json").read_bytes())]
        config = json.loads((folder / "1_Pooling" / "config.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CheckpointError(
            f"{source}: a model without a head gives one vector for each token: expected --pooling mean or cls, or "
            "modules.json and 1_Pooling/config.json as sentence-transformers saves them"
        ) from exc
    ways = [name for name, used in config.items() if name.startswith("pooling_mode_") and used is True]
    ways = ways or [f"pooling_mode_{config.get('pooling_mode')}"]  # since sentence-transformers 5.2
    named: dict[str, Literal["mean", "cls"]] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_mean": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_cls": "cls",
    }
    if len(ways) != 1 or ways[0] not in named or not set(steps) <= {"Transformer", "Pooling", "Normalize"}:
        found = ", ".join([*ways, *steps])
        raise CheckpointError(
            f"{source}: expected pooling by mean or cls and at most a Normalize after it, found {found}"
        )
    return Features(pooling=named[ways[0]], normalize="Normalize" in steps)


def _parsed(content: bytes, source: str | Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(content.decode("utf-8"))
    except Exception as exc:  # the wheel raises bare Exception
        raise CheckpointError(f"{source}: tokenizer.json cannot be read: {exc}; save the tokenizer again") from exc


def _tensors(folder: Path, source: str, kind: str, task: TaskName) -> tuple[dict[str, Tensor], int]:
    """Weights under the names of the checkpoint's own architecture, and their size as stored."""
    path = folder / WEIGHTS
    try:
        if kind == "edgelm":
            return load_file(path), path.stat().st_size
        with _quiet():
            model, info = CLASSES[task].from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    except (SafetensorError, OSError, ValueError, RuntimeError) as exc:
        detail = " ".join(str(exc).split())[:200]
        raise CheckpointError(f"{source}: the weights cannot be read (cut short, or not there?): {detail}") from exc
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))  # nobody reads a bare one
    if missing:
        raise CheckpointError(f"{source}: weights are missing: {', '.join(missing[:3])}")
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
