"""Our own encoder: DistilBERT's architecture with a width of its own for every layer.

The forward pass equals transformers' DistilBERT [Sanh 2019] and, with the token-type row folded into the positions,
BERT [Devlin 2019] and RoBERTa [Liu 2019], each with the head of its task. Two things are done for the engines:

* the mask is an additive -1e4, not -3.4e38: the latter wrecks the ranges of static int8;
* where the head reads the first row alone, as a classifier does, the last layer computes no other. The output is the
  same.

And one thing that a compressed model may do: a layer with a stride computes only every so-manieth row of those that it
reads, so that it and all after it work on fewer. The rows that are left out are still keys and values of that layer, as
in the Funnel-Transformer [Dai 2020, "Funnel-Transformer", section 2.2, "pool-query-only" attention, here with strided
pooling, which keeps the first row what it is].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgelm.heads import ClassificationHead, Head, MaskHead, PoolingHead, TokenHead
from edgelm.manifest import TaskName

__all__ = ["Bias", "Encoder", "EncoderConfig", "Layer", "Network", "attention_bias", "linear_macs", "parameters"]

MASKED = -1e4


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder with the head of its task.

    Attributes:
        vocab_size: rows of the word embeddings.
        dim: hidden width.
        head_dim: width of one attention head.
        heads: attention heads of each layer; may be 0, the sublayer is then a constant.
        ffn: FFN neurons of each layer; may be 0, the sublayer is then a constant.
        max_positions: longest input in tokens.
        labels: names of the classes, by index, where the task has classes.
        head_activation: of the dense layer before a text's classifier: ``relu`` in DistilBERT, ``tanh`` in BERT.
        layer_norm_eps: of every LayerNorm.
        pad_token_id: what inputs are padded with.
        task: decides the head.
        multi_label: each label is a question of its own.
        pooling: of ``feature-extraction``: the mean of all tokens, or the first.
        normalize: vectors have length 1.
        mask_token_id: of ``fill-mask``.
        separator_id: what stands between a question and its context, in models that tell the second text from the
            first by an embedding of its own; None in others.
        strides: of each layer: of the rows that it reads, it computes the first of every so many; empty if all
            layers compute all. The last one's is 1. Only for heads that read the first row alone.
    """

    vocab_size: int
    dim: int
    head_dim: int
    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    max_positions: int
    labels: tuple[str, ...]
    head_activation: Literal["relu", "tanh"] = "relu"
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    task: TaskName = "text-classification"
    multi_label: bool = False
    pooling: Literal["cls", "mean"] = "mean"
    normalize: bool = False
    mask_token_id: int | None = None
    separator_id: int | None = None
    strides: tuple[int, ...] = ()

    def stride(self, layer: int) -> int:
        """See ``strides``."""
        return self.strides[layer] if self.strides else 1

    def spacing(self) -> tuple[int, ...]:
        """How many tokens apart the rows are that each layer reads, and those that the last one gives."""
        return tuple(accumulate((1, *(self.strides or (1,) * len(self.heads))), mul))


class Bias(nn.Module):
    """What is left of a sublayer that lost all of its heads or neurons: a constant, shape (dim,)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self) -> Tensor:
        """The constant, float, shape (dim,)."""
        return self.bias


class _Embeddings(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.dim)
        self.position = nn.Embedding(config.max_positions, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(0.0)
        self._separator = config.separator_id
        if self._separator is not None:
            self.second = nn.Parameter(torch.zeros(config.dim))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.word(input_ids) + self.position.weight[: input_ids.shape[1]]
        if self._separator is not None:  # of all tokens that have a separator before them
            ends = (input_ids == self._separator).to(x.dtype)
            x = x + (ends.cumsum(1) - ends).clamp(max=1.0)[:, :, None] * self.second
        out: Tensor = self.dropout(self.norm(x))
        return out


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        if heads == 0:
            self.out: nn.Linear | Bias = Bias(dim)
            return
        self.q = nn.Linear(dim, heads * head_dim)
        self.k = nn.Linear(dim, heads * head_dim)
        self.v = nn.Linear(dim, heads * head_dim)
        self.out = nn.Linear(heads * head_dim, dim)

    def forward(self, queries: Tensor, x: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = self.out() if self.heads == 0 else self.out(self.mix(queries, x, bias))
        return out

    def mix(self, queries: Tensor, x: Tensor, bias: Tensor) -> Tensor:
        """What the output projection reads: (batch, rows of ``queries``, heads * head_dim)."""
        q, k, v = (self._split(t) for t in (self.q(queries), self.k(x), self.v(x)))
        rows = queries.shape[1]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(-1, -1, rows, -1))
        return mixed.transpose(1, 2).flatten(2)

    def _split(self, t: Tensor) -> Tensor:
        """(batch, tokens, heads * head_dim) to (batch, heads, tokens, head_dim)."""
        split: Tensor = t.unflatten(2, (self.heads, self.head_dim))  # type: ignore[no-untyped-call]
        return split.transpose(1, 2)


class _Ffn(nn.Module):
    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.width = width
        if width == 0:
            self.down: nn.Linear | Bias = Bias(dim)
            return
        self.up = nn.Linear(dim, width)
        self.down = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down() if self.width == 0 else self.down(self.neurons(x))
        return out

    def neurons(self, x: Tensor) -> Tensor:
        """What the down projection reads: (batch, rows, width)."""
        return functional.gelu(self.up(x))


class Layer(nn.Module):
    """One post-norm transformer layer."""

    def __init__(self, config: EncoderConfig, index: int) -> None:
        super().__init__()
        self.attention = _Attention(config.dim, config.heads[index], config.head_dim)
        self.attention_norm = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.ffn = _Ffn(config.dim, config.ffn[index])
        self.ffn_norm = nn.LayerNorm(config.dim, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor, bias: Tensor, *, stride: int = 1, cls_only: bool = False) -> Tensor:
        """Run the layer.

        Args:
            x: float, shape (batch, tokens, dim).
            bias: additive attention mask, float, shape (batch, 1, 1, tokens).
            stride: compute the first of every so many rows.
            cls_only: compute the first row alone.

        Returns:
            Float, shape (batch, rows, dim): tokens / stride of them, rounded up, or one with ``cls_only``.
        """
        queries = x[:, :1] if cls_only else _every(x, stride, 1)
        x = self.attention_norm(queries + self.dropout(self.attention(queries, x, bias)))
        out: Tensor = self.ffn_norm(x + self.dropout(self.ffn(x)))
        return out


class _Layers(nn.ModuleList):
    if TYPE_CHECKING:  # torch types what a ModuleList holds as Module

        def __iter__(self) -> Iterator[Layer]: ...
        def __getitem__(self, index: int) -> Layer: ...  # type: ignore[override]


class Network(nn.Module):
    """Whatever turns (input_ids, attention_mask) into a head's output: our encoder, or a model of another framework.

    Attributes:
        config: its shape.
        head: what comes out; see ``edgelm.heads.Head``.
    """

    config: EncoderConfig
    head: Head


class Encoder(Network):
    """DistilBERT with per-layer widths and the head of its task."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.layers = _Layers(Layer(config, i) for i in range(len(config.heads)))
        self.head = _head(config, self.embeddings.word)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Run the model.

        Args:
            input_ids: int32 or int64, shape (batch, tokens).
            attention_mask: same dtype and shape, 1 for tokens and 0 for padding.

        Returns:
            The head's output, float32: for text classification logits, shape (batch, classes).
        """
        for x in self.hidden_states(input_ids, attention_mask):
            last = x
        out: Tensor = self.head(last, attention_mask)
        return out

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor) -> Iterator[Tensor]:
        """The embeddings and each layer's output, one after the other; of the last layer, only what the head reads."""
        x = self.embeddings(input_ids)
        bias = attention_bias(attention_mask).to(x.dtype)  # torch computes nonsense for a mask of another type
        yield x
        for index, layer in enumerate(self.layers, start=1):
            stride = self.config.stride(index - 1)
            x = layer(x, bias, stride=stride, cls_only=self.head.first_row and index == len(self.layers))
            yield x
            bias = _every(bias, stride, 3)

    def set_dropout(self, probability: float) -> None:
        """Set the probability of every dropout in the model; it acts in training mode only."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability


def _every(x: Tensor, stride: int, axis: int) -> Tensor:
    """The first of every ``stride`` along an axis.

    Where the length is known and divides, it is written so that XNNPACK runs it, which knows no slice with a step.
    """
    length = x.shape[axis]
    if stride == 1:
        return x
    if isinstance(length, int) and length % stride == 0:
        parts: Tensor = x.unflatten(axis, (-1, stride))  # type: ignore[no-untyped-call]
        return parts.narrow(axis + 1, 0, 1).flatten(axis, axis + 1)
    return x[(slice(None),) * axis + (slice(None, None, stride),)]


def _head(config: EncoderConfig, word: nn.Embedding) -> Head:
    match config.task:
        case "text-classification":
            return ClassificationHead(config.dim, len(config.labels), config.head_activation)
        case "token-classification":
            return TokenHead(config.dim, len(config.labels))
        case "question-answering":
            return TokenHead(config.dim, 2)
        case "fill-mask":
            return MaskHead(config.dim, word, config.layer_norm_eps)
        case "feature-extraction":
            return PoolingHead(config.dim, config.pooling, normalize=config.normalize)


def attention_bias(attention_mask: Tensor) -> Tensor:
    """Additive mask, float32, shape (batch, 1, 1, tokens): 0 for tokens, -1e4 for padding."""
    return (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * MASKED


def parameters(model: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(p.numel() for p in model.parameters())


def linear_macs(config: EncoderConfig) -> int:
    """Multiply-accumulates a token of the encoder's linear layers, the last one's as if it computed every row.

    4 * dim * heads * head_dim + 2 * dim * ffn, summed over layers. Half of an attention's are for each row that it
    reads, all others for each that is computed, see ``EncoderConfig.spacing``; the sum is rounded. QK^T and AV are left
    out.
    """
    rows = pairwise(config.spacing())
    macs = (
        2 * config.dim * (heads * config.head_dim * (1 / read + 1 / made) + width / made)
        for heads, width, (read, made) in zip(config.heads, config.ffn, rows, strict=True)
    )
    return round(sum(macs))
