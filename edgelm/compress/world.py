"""The processes that distil together: one alone, or those that ``accelerate launch`` started, on GPUs or hosts.

Launching, devices and communication are accelerate's; each process takes its share of the batches of every step.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from edgelm.errors import MissingExtra

__all__ = ["World", "world"]


@dataclass(frozen=True)
class World:
    """Who takes part.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        device: what this one computes on.
        accelerator: accelerate's own; None where this process is alone.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it is immutable
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks and writes for all."""
        return self.rank == 0

    def same_(self, model: nn.Module) -> None:
        """Give every process the first one's weights: what was computed before may differ in the last bits."""
        if self.size > 1:
            from accelerate.utils import broadcast

            for tensor in model.state_dict().values():
                tensor.copy_(broadcast(tensor.clone(), from_process=0))

    def mean_(self, model: nn.Module) -> None:
        """Give every process the mean of all processes' gradients."""
        if self.size > 1:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.copy_(self.accelerator.reduce(parameter.grad, reduction="mean"))

    def mean(self, value: float) -> float:
        """The mean of a number over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float32, device=self.device)  # not every device has float64
        return float(self.accelerator.reduce(tensor, reduction="mean"))


@cache
def world() -> World:
    """This process alone on the CPU, or its place among those that ``accelerate launch`` started.

    Raises:
        MissingExtra: it was launched so, but accelerate is not installed here.
    """
    if not _launched():
        return World()
    try:
        from accelerate import Accelerator
    except ModuleNotFoundError as exc:
        raise MissingExtra("distilling in several processes", "distributed") from exc
    accelerator = Accelerator()
    return World(accelerator.process_index, accelerator.num_processes, accelerator.device, accelerator)


def _launched() -> bool:
    """Whether accelerate, which sets the first for every process, or torchrun, which sets the other, started this."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ or int(os.environ.get("WORLD_SIZE", "1")) > 1
