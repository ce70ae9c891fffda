"""What an artifact says of itself, for whoever has it without its bundle."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import msgspec

from edgelm.manifest import Precision

if TYPE_CHECKING:
    from edgelm.model import Encoder

__all__ = ["NAME", "described"]

NAME = "edgelm"
"""Under which it stands: in ``metadata_props`` of ONNX, as a metadata buffer of TFLite."""


def described(model: Encoder, precision: Precision) -> str:
    """A JSON object with ``edgelm``, the version, and ``task``, ``labels``, ``multi_label``, ``precision``."""
    shape = model.config
    facts = {
        "edgelm": version("edgelm"),
        "task": shape.task,
        "labels": shape.labels,
        "multi_label": shape.multi_label,
        "precision": precision,
    }
    return msgspec.json.encode(facts).decode()
