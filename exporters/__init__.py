"""Formats: one module each, all with the same verbs. A new format is one file here and one line in ``EXPORTERS``."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, cast

from edgelm.errors import MissingExtra, RecipeError
from edgelm.manifest import Int8, Precision

if __name__ != "edgelm.exporters":
    raise ImportError("use edgelm.exporters: imported from the checkout, this would be a second copy")

if TYPE_CHECKING:
    from edgelm.model import Encoder, Network
    from edgelm.runtimes import Ids

__all__ = [
    "EXPORTERS",
    "MOST_BYTES",
    "UNCALIBRATED",
    "Exporter",
    "Report",
    "Tell",
    "check_request",
    "check_size",
    "exporter",
    "log",
    "names",
]

# onnxruntime's wheels report usage unless this is set before they are imported, and its quantizer imports them
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


@dataclass(frozen=True)
class Report:
    """How an artifact came about.

    Attributes:
        format: of the artifact.
        precision: of the artifact.
        bytes: its size.
        nodes: operators in it, of one signature where it has several.
        seconds: it took to write and to try out.
        notes: what did not go as usual, one sentence each; the artifact is good nevertheless.
        outside: operators that the engine's fast kernels do not take, with how many of each, as one phrase.
    """

    format: str
    precision: Precision
    bytes: int
    nodes: int
    seconds: float
    notes: tuple[str, ...] = ()
    outside: str = ""


UNCALIBRATED = "int8-static is calibrated on real texts: expected --data FILE, or data.train or data.dev in the recipe"

MOST_BYTES = 2**31 - 1
"""Of a FlatBuffer, and of a graph of TensorFlow's. ONNX has no limit."""

Tell = Callable[[Report], None]
"""Called with the report of each artifact."""


def log(report: Report) -> None:
    """A ``Tell`` that logs, under the name ``edgelm``: notes as warnings, the rest as information."""
    logger, name = logging.getLogger("edgelm"), f"{report.format} {report.precision}"
    left = f"; by the engine's plain kernels: {report.outside}" if report.outside else ""
    logger.info("%s: %d bytes, %d nodes, %.1f s%s", name, report.bytes, report.nodes, report.seconds, left)
    for note in report.notes:
        logger.warning("%s: %s", name, note)


class Exporter(Protocol):
    """What a module of this package offers."""

    ENGINE: str
    """The engine that runs its artifacts; see ``edgelm.runtimes``."""

    PRECISIONS: tuple[Precision, ...]
    """What it can write."""

    def export(
        self,
        model: Encoder,
        precisions: Sequence[Precision],
        lengths: Sequence[int],
        *,
        calibration: Sequence[Ids] | None = None,
        int8: Int8 = "u8s7",
        tell: Tell = log,
    ) -> dict[Precision, bytes]:
        """Write a model in each precision, load every artifact in its engine and run it.

        Inputs of every artifact are ``input_ids`` and ``attention_mask``, int32, shape (batch, tokens); its one output
        is the head's, float32, under the head's name for it: ``logits``, or ``sentence_embedding``. The same model
        gives the same bytes, and they hold ``metadata.described``, where the format has a place for it.

        Args:
            model: the encoder, in evaluation mode; it is not changed.
            precisions: what to write.
            lengths: token lengths to write signatures for, where the format has signatures; the longest is the
                longest input the artifact takes.
            calibration: token ids of real texts, int32, shape (tokens,) each, without padding; for ``int8-static``, and
                for ``fp16`` to see where it overflows.
            int8: types of integer products, where the engine has a choice; the default is exact on every processor.
            tell: is given a report of each artifact.

        Returns:
            The artifacts, in the order of ``precisions``.

        Raises:
            RecipeError: a precision or length that cannot be written, or one that lacks its calibration.
            DataError: the calibration says too little.
            ExportFailed: a converter failed, or an artifact does not load and run.
        """


def check_request(
    form: str,
    known: Sequence[Precision],
    model: Network,
    precisions: Sequence[Precision],
    lengths: Sequence[int],
    calibration: Sequence[Ids] | None = None,
) -> None:
    """Refuse what an exporter cannot write.

    Args:
        form: the format, for the error.
        known: precisions it can write.
        model: what is to be exported.
        precisions: what is asked for.
        lengths: token lengths that are asked for.
        calibration: texts to calibrate on, if there are any.

    Raises:
        RecipeError: a precision is not among the known or has no texts to be calibrated on, there is no length, or the
            model is too short for one.
    """
    for precision in precisions:
        if precision not in known:
            raise RecipeError(f"{form} is not written as {precision}: expected one of {', '.join(known)}")
    if "int8-static" in precisions and calibration is None:
        raise RecipeError(UNCALIBRATED)
    most = model.config.max_positions
    if not lengths or min(lengths) < 2 or max(lengths) > most:
        raise RecipeError(f"lengths {list(lengths)}: expected at least one number of tokens from 2 to {most}")


def check_size(form: str, model: Network, cure: str = "make it smaller (edgelm compress), or --format onnx") -> None:
    """Refuse a model that does not fit into one FlatBuffer, which TFLite is, or one protobuf message of TensorFlow's.

    Args:
        form: the format, for the error.
        model: what is to be exported; every precision is made of it in float32.
        cure: what to do instead.

    Raises:
        RecipeError: it is too large.
    """
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > MOST_BYTES:
        raise RecipeError(
            f"{form}: the model's weights take {size / 1e9:.3g} GB in float32, and what it is made of holds "
            f"{MOST_BYTES / 1e9:.3g} GB at most: {cure}"
        )


_GROUP = "edgelm.exporters"

EXPORTERS = {
    "onnx": "edgelm.exporters.onnx",
    "tflite": "edgelm.exporters.tflite",
}
_NAMES = {"onnx": "ONNX", "tflite": "TFLite"}


def names() -> list[str]:
    """Of all formats, built in and installed by others, sorted."""
    return sorted({*EXPORTERS, *(point.name for point in entry_points(group=_GROUP))})


def exporter(format: str) -> Exporter:
    """The exporter to this format: built in, or installed under the entry point ``edgelm.exporters``.

    Raises:
        MissingExtra: it needs packages that are not installed.
        RecipeError: there is no such format.
    """
    path = EXPORTERS.get(format)
    if path is not None:
        try:
            return cast(Exporter, importlib.import_module(path))
        except ModuleNotFoundError as exc:
            if (exc.name or "").startswith("edgelm."):
                raise
            raise MissingExtra(f"exporting to {_NAMES[format]}", "export") from exc
    for point in entry_points(group=_GROUP):
        if point.name == format:
            return cast(Exporter, point.load())
    raise RecipeError(f"no format named '{format}': expected one of {', '.join(names())}")
