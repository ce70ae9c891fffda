"""One artifact against the module it was exported from, and against the original: parity, accuracy, the gate."""

from __future__ import annotations

from edgelm import tasks
from edgelm.data import Dataset
from edgelm.exporters import parity
from edgelm.model import Encoder
from edgelm.text import Tokenizer

__all__ = ["Reference", "check"]


class Reference:
    """A module's answers to the dev texts, computed once and shared by all that is compared with it.

    Attributes:
        model: the module.
        texts: the dev texts.
        rows: their token ids, int32.
        hostile: token ids of the hostile texts (``parity.HOSTILE_TEXTS``).
        logits: float32, shape (texts, classes).
        score: on the dev texts, if they have labels.
    """

    def __init__(self, model: Encoder, tokenizer: bytes, max_tokens: int, texts: Dataset) -> None:
        cut = Tokenizer(tokenizer, max_tokens=max_tokens, pad_token_id=model.config.pad_token_id)
        self.model, self.texts = model, texts
        self.rows = cut.encode(list(texts.texts))
        self.hostile = cut.encode(list(parity.HOSTILE_TEXTS))
        self.logits = parity.reference(model, self.rows)
        self.score = None if texts.gold is None else tasks.accuracy(self.logits, texts.gold)
