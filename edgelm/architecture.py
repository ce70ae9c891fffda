"""The architectures that are read: how each names its tensors and its settings, and what those are in ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from torch import Tensor

from edgelm.errors import CheckpointError
from edgelm.manifest import TaskName
from edgelm.model import EncoderConfig

__all__ = ["ARCHITECTURES", "encoder_config", "task_of", "to_ours", "to_raw", "to_theirs"]

# ours -> DistilBERT's; {i} is the layer
DISTILBERT = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{i}.attention.q": "transformer.layer.{i}.attention.q_lin",
    "layers.{i}.attention.k": "transformer.layer.{i}.attention.k_lin",
    "layers.{i}.attention.v": "transformer.layer.{i}.attention.v_lin",
    "layers.{i}.attention.out": "transformer.layer.{i}.attention.out_lin",
    "layers.{i}.attention_norm": "transformer.layer.{i}.sa_layer_norm",
    "layers.{i}.ffn.up": "transformer.layer.{i}.ffn.lin1",
    "layers.{i}.ffn.down": "transformer.layer.{i}.ffn.lin2",
    "layers.{i}.ffn_norm": "transformer.layer.{i}.output_layer_norm",
}
# ours -> BERT's, and RoBERTa's
BERT = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{i}.attention.q": "encoder.layer.{i}.attention.self.query",
    "layers.{i}.attention.k": "encoder.layer.{i}.attention.self.key",
    "layers.{i}.attention.v": "encoder.layer.{i}.attention.self.value",
    "layers.{i}.attention.out": "encoder.layer.{i}.attention.output.dense",
    "layers.{i}.attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.ffn.up": "encoder.layer.{i}.intermediate.dense",
    "layers.{i}.ffn.down": "encoder.layer.{i}.output.dense",
    "layers.{i}.ffn_norm": "encoder.layer.{i}.output.LayerNorm",
}
ARCHITECTURES = {"distilbert": DISTILBERT, "bert": BERT, "roberta": BERT, "edgelm": DISTILBERT}
# ours -> theirs, of the heads
TOKENS = {"head.classifier": "classifier"}
ANSWERS = {"head.classifier": "qa_outputs"}
HEADS: dict[str, dict[TaskName, dict[str, str]]] = {
    "distilbert": {
        "text-classification": {"head.pooler": "pre_classifier", "head.classifier": "classifier"},
        "token-classification": TOKENS,
        "question-answering": ANSWERS,
        "fill-mask": {
            "head.transform": "vocab_transform",
            "head.norm": "vocab_layer_norm",
            "head.decoder": "vocab_projector",
        },
        "feature-extraction": {},
    },
    "bert": {
        "text-classification": {"head.pooler": "pooler.dense", "head.classifier": "classifier"},
        "token-classification": TOKENS,
        "question-answering": ANSWERS,
        "fill-mask": {
            "head.transform": "cls.predictions.transform.dense",
            "head.norm": "cls.predictions.transform.LayerNorm",
            "head.decoder": "cls.predictions.decoder",
        },
        "feature-extraction": {},
    },
    "roberta": {
        "text-classification": {"head.pooler": "classifier.dense", "head.classifier": "classifier.out_proj"},
        "token-classification": TOKENS,
        "question-answering": ANSWERS,
        "fill-mask": {
            "head.transform": "lm_head.dense",
            "head.norm": "lm_head.layer_norm",
            "head.decoder": "lm_head.decoder",
        },
        "feature-extraction": {},
    },
}
HEADS["edgelm"] = HEADS["distilbert"]
TASKS: dict[str, TaskName] = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "Model": "feature-extraction",
}
"""By the ending of the class that transformers saved."""


def task_of(raw: Mapping[str, Any], source: object) -> TaskName:
    """The task that a checkpoint was fine-tuned for.

    Args:
        raw: its ``config.json``.
        source: named in errors.

    Raises:
        CheckpointError: its head is not one that is known.
    """
    name = str((raw.get("architectures") or ["none"])[0])
    for ending, task in TASKS.items():
        if name.endswith(ending):
            return task
    raise CheckpointError(
        f"{source}: head {name} is not supported: expected a model for one of {', '.join(get_args(TaskName))}"
    )


def encoder_config(
    raw: Mapping[str, Any],
    task: TaskName,
    source: object,
    *,
    pooling: Literal["cls", "mean"] = "mean",
    normalize: bool = False,
    mask_token_id: int | None = None,
    separator_id: int | None = None,
) -> EncoderConfig:
    """Our config from DistilBERT's keys, or BERT's.

    Args:
        raw: ``config.json``.
        task: that the model is read for.
        source: named in errors.
        pooling: of ``feature-extraction``.
        normalize: of ``feature-extraction``.
        mask_token_id: of the tokenizer.
        separator_id: of the tokenizer.

    Raises:
        CheckpointError: a key is missing, or says what is not supported.
    """
    activation = raw.get("activation", raw.get("hidden_act", "gelu"))
    if activation != "gelu":
        raise CheckpointError(f"{source}: activation '{activation}': expected gelu")
    if raw.get("position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(f"{source}: position embeddings '{raw['position_embedding_type']}': expected absolute")
    named = task in ("text-classification", "token-classification")
    kind = raw["model_type"]
    try:
        dim = int(raw["dim"] if "dim" in raw else raw["hidden_size"])
        layers = int(raw["n_layers"] if "n_layers" in raw else raw["num_hidden_layers"])
        heads = raw["n_heads"] if "n_heads" in raw else raw["num_attention_heads"]
        ffn = raw["hidden_dim"] if "hidden_dim" in raw else raw["intermediate_size"]
        pad_token_id = int(raw.get("pad_token_id") or 0)
        # RoBERTa counts positions from the one after the padding's [transformers, create_position_ids_from_input_ids]
        unused = pad_token_id + 1 if kind == "roberta" else 0
        return EncoderConfig(
            vocab_size=int(raw["vocab_size"]),
            dim=dim,
            head_dim=int(raw.get("head_dim") or dim // heads),
            heads=tuple(heads) if isinstance(heads, list) else (int(heads),) * layers,
            ffn=tuple(ffn) if isinstance(ffn, list) else (int(ffn),) * layers,
            max_positions=int(raw["max_position_embeddings"]) - unused,
            labels=_labels(raw, source) if named else (),
            head_activation=raw.get("head_activation", "relu" if "dim" in raw else "tanh"),
            layer_norm_eps=float(raw.get("layer_norm_eps", 1e-12)),
            pad_token_id=pad_token_id,
            task=task,
            multi_label=named and raw.get("problem_type") == "multi_label_classification",
            pooling=pooling,
            normalize=normalize,
            mask_token_id=mask_token_id if task == "fill-mask" else None,
            strides=_strides(raw, layers),
            separator_id=separator_id if _tells_texts_apart(raw) and task == "question-answering" else None,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{source}: config.json is not complete: {exc!r}") from exc


def _tells_texts_apart(raw: Mapping[str, Any]) -> bool:
    return raw["model_type"] == "bert" and int(raw.get("type_vocab_size", 2)) > 1


def _strides(raw: Mapping[str, Any], layers: int) -> tuple[int, ...]:
    """What only our own checkpoints have, and only if they were pruned so."""
    strides = tuple(map(int, raw.get("strides", ())))
    if strides and (len(strides) != layers or min(strides) < 1 or strides[-1] != 1):
        raise ValueError(f"expected strides of {layers} layers, 1 or more, the last one 1, found {list(strides)}")
    return strides


def _labels(raw: Mapping[str, Any], source: object) -> tuple[str, ...]:
    labels = raw.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    if raw.get("problem_type") == "regression" or len(labels) < 2:
        raise CheckpointError(f"{source}: expected two labels or more, found a regression")
    return tuple(str(labels[key]) for key in sorted(labels, key=int))


def to_raw(config: EncoderConfig) -> dict[str, Any]:
    """The inverse of ``encoder_config``, for what compression leaves of a text classifier.

    A plain DistilBERT's config wherever transformers can express the shape.
    """
    uniform = len(set(config.heads)) == 1 and len(set(config.ffn)) == 1
    plain = (
        uniform
        and config.heads[0] * config.head_dim == config.dim
        and config.ffn[0] > 0
        and set(config.strides) <= {1}
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
            **({"strides": list(config.strides)} if config.strides else {}),
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
        "problem_type": "multi_label_classification" if config.multi_label else "single_label_classification",
        "dtype": "float16",
        "id2label": {str(i): label for i, label in enumerate(config.labels)},
        "label2id": {label: i for i, label in enumerate(config.labels)},
    }


def to_theirs(ours: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Tensors of a text classifier of ours under DistilBERT's names."""
    table = _table("distilbert", "text-classification", layers)
    found = {}
    for name, tensor in ours.items():
        module, _, leaf = name.rpartition(".")
        prefix = "" if module.startswith("head.") else "distilbert."
        found[f"{prefix}{table[module]}.{leaf}"] = tensor
    return found


def to_ours(theirs: Mapping[str, Tensor], kind: str, config: EncoderConfig) -> dict[str, Tensor]:
    """Their tensors under our names, float32, with what ours has not folded into what it has.

    BERT's and RoBERTa's token-type row 0 is added to every position. Where a second text is told from the first, the
    difference between the rows is kept. RoBERTa's positions begin after the padding's.

    Args:
        theirs: as transformers names them, with or without the architecture's own prefix.
        kind: the architecture.
        config: of ours.

    Raises:
        KeyError: a tensor is missing.
    """
    table = {b: a for a, b in _table(kind, config.task, len(config.heads)).items()}
    bare = {
        name.removeprefix(f"{kind if kind != 'edgelm' else 'distilbert'}."): tensor for name, tensor in theirs.items()
    }
    ours = {}
    for name, tensor in bare.items():
        module, _, leaf = name.rpartition(".")
        if module in table:
            ours[f"{table[module]}.{leaf}"] = tensor.float()
    if kind == "roberta":
        ours["embeddings.position.weight"] = ours["embeddings.position.weight"][config.pad_token_id + 1 :]
    if kind in ("bert", "roberta"):
        types = bare["embeddings.token_type_embeddings.weight"].float()
        ours["embeddings.position.weight"] = ours["embeddings.position.weight"] + types[0]
        if config.separator_id is not None:
            ours["embeddings.second"] = types[1] - types[0]
    if config.task == "fill-mask":
        ours["head.decoder.weight"] = ours["embeddings.word.weight"]
    return ours


def _table(kind: str, task: TaskName, layers: int) -> dict[str, str]:
    """Our names of modules, and theirs."""
    table = {**ARCHITECTURES[kind], **HEADS[kind][task]}
    return {a.format(i=i): b.format(i=i) for a, b in table.items() for i in range(layers)}
