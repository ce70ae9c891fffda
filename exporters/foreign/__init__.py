"""Models of other frameworks: what they answer, and what can be written of them."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgelm.errors import CheckpointError, MissingExtra
from edgelm.exporters import Tell, log
from edgelm.exporters.foreign.companions import Companions
from edgelm.heads import Head
from edgelm.manifest import Format, Int8, Precision
from edgelm.model import EncoderConfig, Network
from edgelm.runtimes import Ids, Logits

__all__ = ["PRECISIONS", "Foreign", "Imported", "Output", "read", "recognised"]

PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "onnx": ("fp32", "fp16", "int8-dynamic", "int4-weights"),
    "tflite": ("fp32", "fp16", "int8-dynamic", "int8-static", "int4-weights"),
}
"""What is written of a model in float32."""


class Foreign(Network):
    """A model that another framework runs. Its answers are what everything that is made of it is compared with.

    Attributes:
        can: precisions that can be written of it, by format.
    """

    head: Output

    def __init__(
        self, config: EncoderConfig, output: Output, weights: int, can: Mapping[Format, tuple[Precision, ...]]
    ) -> None:
        super().__init__()
        self.config, self.head, self.can = config, output, can
        # to be counted alone: the framework holds them
        self.weights = nn.Parameter(torch.empty(weights, device="meta"), requires_grad=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See ``Network``."""
        return torch.from_numpy(self.answer(input_ids.numpy(), attention_mask.numpy()))

    @abstractmethod
    def answer(self, input_ids: Ids, attention_mask: Ids) -> Logits:
        """What the framework itself answers to int32, shape (batch, tokens); float32."""

    @abstractmethod
    def export(
        self,
        form: Format,
        precisions: Sequence[Precision],
        lengths: Sequence[int],
        *,
        calibration: Sequence[Ids] | None = None,
        int8: Int8 = "u8s7",
        tell: Tell = log,
    ) -> dict[Precision, bytes]:
        """Write it in a format; else as ``edgelm.exporters.Exporter`` does with an encoder of ours."""


@dataclass(frozen=True)
class Imported:
    """A model of another framework with what stands beside it: as ``Compressed`` is of ours, and its own original.

    Attributes:
        model: the model.
        tokenizer: content of ``tokenizer.json``.
        source: file or folder.
        bytes: of that.
        lengths: token lengths to write signatures for.
        engine: what runs it: ``tensorflow`` or ``litert``.
        precision: that it is in.
    """

    model: Foreign
    tokenizer: bytes
    source: str
    bytes: int
    lengths: tuple[int, ...]
    engine: str
    precision: Precision = "fp32"

    @property
    def original(self) -> Imported:
        """Itself: it is not compressed."""
        return self

    @property
    def max_tokens(self) -> int:
        """Longer texts are cut to this."""
        return max(self.lengths)


class Output(Head):
    """Stands for a head that is inside the model.

    Attributes:
        width: of the output's last axis.
        by_token: there is a row for each token.
    """

    def __init__(self, name: str, width: int, *, by_token: bool) -> None:
        super().__init__()
        self.OUTPUT, self.width, self.by_token = name, width, by_token  # type: ignore[misc]  # of this model alone

    def shape(self, batch: int, tokens: int) -> tuple[int, ...]:
        """See ``Head``."""
        return (batch, tokens, self.width) if self.by_token else (batch, self.width)


def recognised(source: str | Path) -> bool:
    """Whether this is a model of TensorFlow: a file, or a folder with ``saved_model.pb``."""
    path = Path(source)
    return path.is_file() or (path / "saved_model.pb").is_file()


def read(source: Path, beside: Companions, lengths: Sequence[int]) -> Imported:
    """Read a ``.keras`` file, a SavedModel folder or a ``.tflite`` file.

    Args:
        source: the model.
        beside: its tokenizer, task and labels.
        lengths: token lengths that are wanted of it; what it cannot take of them is left out.

    Raises:
        CheckpointError: it is none of these, is damaged, or has other inputs or another output than its task.
        DataError: tokenizer or labels are not those of the model.
        MissingExtra: the packages to read it are not installed.
    """
    if source.suffix not in (".keras", ".tflite") and not (source / "saved_model.pb").is_file():
        raise CheckpointError(
            f"{source}: expected a .keras or .tflite file, a SavedModel folder, or a Hugging Face checkpoint folder"
        )
    name, extra = ("foreign.tflite_file", "export") if source.suffix == ".tflite" else ("tensorflow", "tensorflow")
    try:
        module: Any = importlib.import_module(f"edgelm.exporters.{name}")
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("edgelm"):
            raise
        raise MissingExtra(f"{source.name}: reading it", extra) from exc
    found: Imported = module.read(source, beside, lengths)
    return found
