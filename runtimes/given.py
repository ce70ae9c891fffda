"""What ONNX Runtime is given of an artifact: a model, and the place of the weights that are not in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgelm.bundle import Bundle, Parts, Region
from edgelm.manifest import Variant
from edgelm.runtimes.external import apart, joined, referring, shell

__all__ = ["MOST_BYTES", "Given", "entries", "held", "large", "mapped", "opened", "whole"]

MOST_BYTES = 2**31 - 1
"""Of a message that protobuf reads and writes (https://protobuf.dev/programming-guides/proto-limits)."""

_ITSELF = "artifact"


def large(size: int) -> bool:
    """Whether so many bytes are more than protobuf reads and writes at once."""
    return size > MOST_BYTES


@dataclass(frozen=True)
class Given:
    """A model to start.

    Attributes:
        content: the model, which may refer to weights that are elsewhere.
        folder: where the file lies that it refers to, if it is a file.
        files: else the content of what it refers to, by name; ONNX Runtime reads it until the session is there.
    """

    content: bytes
    folder: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)

    def tell_(self, options: Any) -> None:
        """Tell a session's options where the weights are."""
        if self.folder:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", self.folder)
        if self.files:
            sizes = [len(content) for content in self.files.values()]
            options.add_external_initializers_from_files_in_memory([*self.files], [*self.files.values()], sizes)


def held(artifact: bytes) -> Given:
    """An artifact in memory, of any size.

    Raises:
        BundleError: it is too large for protobuf, and not an ONNX model.
    """
    if not large(len(artifact)):
        return Given(artifact)
    return Given(shell(artifact, _ITSELF), files={_ITSELF: artifact})


def mapped(model: Region, weights: Region | None = None) -> Given:
    """An artifact where it lies in a bundle, unchecked.

    Args:
        model: where the model lies.
        weights: where those lie that are not in it.

    Raises:
        BundleError: it is not an ONNX model.
    """
    return Given(referring(model, weights), str(model.path.parent))


def opened(bundle: Bundle, variant: Variant) -> Given:
    """A variant where it lies in its bundle, unchecked, if it is stored as it is; else read.

    Raises:
        BundleDamaged: what was read is not what was written.
        BundleError: it is not an ONNX model.
    """
    regions = [region for name in variant.files if (region := bundle.region(name)) is not None]
    if len(regions) < len(variant.files):
        return held(whole(bundle, variant))
    return mapped(*regions)


def whole(bundle: Bundle, variant: Variant) -> bytes:
    """A variant's artifact, as it was before it came into the bundle.

    Raises:
        BundleDamaged: it is not what was written.
    """
    content, *weights = (bundle.read(name) for name in variant.files)
    return joined(content, *weights) if weights else content


def entries(file: str, artifact: bytes) -> dict[str, Parts]:
    """What a bundle holds of an artifact, by name: itself, or an ONNX model without its weights and, beside it, those.

    Args:
        file: its name.
        artifact: its content.
    """
    return apart(file, artifact) if large(len(artifact)) and file.endswith(".onnx") else {file: [artifact]}
