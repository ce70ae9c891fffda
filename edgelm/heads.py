"""What an encoder's last hidden states become: one head for each task."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ClassificationHead", "Head", "MaskHead", "PoolingHead", "TokenHead"]


class Head(nn.Module):
    """Base of all heads.

    Attributes:
        OUTPUT: name of what comes out, in every artifact.
        first_row: only the first token's hidden state is read, so that the last layer need not compute others.
    """

    OUTPUT: ClassVar[str] = "logits"
    first_row: bool = False

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """The output.

        Args:
            hidden: last hidden states, float, shape (batch, tokens, dim), or (batch, 1, dim) with ``first_row``.
            attention_mask: shape (batch, tokens), 1 for tokens and 0 for padding.
        """
        raise NotImplementedError

    def shape(self, batch: int, tokens: int) -> tuple[int, ...]:
        """Of the output."""
        raise NotImplementedError


class ClassificationHead(Head):
    """A dense layer on the first token, an activation, the classifier. Logits, shape (batch, classes)."""

    first_row = True

    def __init__(self, dim: int, classes: int, activation: Literal["relu", "tanh"]) -> None:
        super().__init__()
        self.pooler = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(0.0)
        self.classifier = nn.Linear(dim, classes)
        self._activate = torch.relu if activation == "relu" else torch.tanh

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """See ``Head``."""
        del attention_mask
        logits: Tensor = self.classifier(self.dropout(self._activate(self.pooler(hidden[:, 0]))))
        return logits

    def shape(self, batch: int, tokens: int) -> tuple[int, ...]:
        """See ``Head``."""
        del tokens
        return batch, self.classifier.out_features


class TokenHead(Head):
    """A classifier on every token. Logits, shape (batch, tokens, classes)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, classes)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """See ``Head``."""
        del attention_mask
        logits: Tensor = self.classifier(hidden)
        return logits

    def shape(self, batch: int, tokens: int) -> tuple[int, ...]:
        """See ``Head``."""
        return batch, tokens, self.classifier.out_features


class MaskHead(Head):
    """What each token is likely to be. Logits, shape (batch, tokens, vocabulary).

    The last matrix is the word embeddings themselves [Press 2017].
    """

    def __init__(self, dim: int, word: nn.Embedding, layer_norm_eps: float) -> None:
        super().__init__()
        self.transform = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=layer_norm_eps)
        self.decoder = nn.Linear(dim, word.num_embeddings)
        self.decoder.weight = word.weight

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """See ``Head``."""
        del attention_mask
        x = self.norm(functional.gelu(self.transform(hidden)))
        # in two dimensions the exporters write one Gemm, which reads the embeddings as they lie, and not a second copy
        flat: Tensor = self.decoder(x.flatten(0, 1))
        return flat.view(x.shape[0], x.shape[1], self.decoder.out_features)

    def shape(self, batch: int, tokens: int) -> tuple[int, ...]:
        """See ``Head``."""
        return batch, tokens, self.decoder.out_features


class PoolingHead(Head):
    """One vector for a text. Shape (batch, dim)."""

    OUTPUT = "sentence_embedding"

    def __init__(self, dim: int, pooling: Literal["cls", "mean"], *, normalize: bool) -> None:
        super().__init__()
        self.dim, self.normalize, self.first_row = dim, normalize, pooling == "cls"

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """See ``Head``."""
        if self.first_row:
            pooled = hidden[:, 0]
        else:
            counted = attention_mask[:, :, None].to(hidden.dtype)
            pooled = (hidden * counted).sum(1) / counted.sum(1)
        # as torch's normalize, which expands the lengths first, to a shape that a graph would have to compute
        return pooled / pooled.norm(dim=-1, keepdim=True).clamp_min(1e-12) if self.normalize else pooled

    def shape(self, batch: int, tokens: int) -> tuple[int, ...]:
        """See ``Head``."""
        del tokens
        return batch, self.dim
