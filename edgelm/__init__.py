"""edgelm: a fine-tuned DistilBERT in, one file out that runs it, small and fast, on the device you name, with proof."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgelm.predictor import Model, load

__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:  # PEP 562: `import edgelm` stays free of every dependency
    if name in ("Model", "load"):
        from edgelm import predictor

        return getattr(predictor, name)
    if name == "__version__":
        return version("edgelm")
    raise AttributeError(f"module 'edgelm' has no attribute '{name}'")
