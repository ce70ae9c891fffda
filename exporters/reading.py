"""An independent reading of a TFLite artifact: tf2onnx reads the file, and ONNX Runtime runs what it found there.

Neither the converter that wrote the file nor the engine that it is for has a part in it. Weights in int8 are read with
their scales, as the numbers that they stand for. That activations are quantized as it runs is nowhere in a TFLite file,
and so not in what is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgelm.errors import DataError
from edgelm.exporters.foreign.signatures import alone
from edgelm.exporters.foreign.tf_onnx import from_tflite
from edgelm.exporters.parity import outputs
from edgelm.model import Network
from edgelm.runtimes import Ids, Session, engine
from edgelm.text import padded

__all__ = ["difference", "session"]


def session(artifact: bytes, length: int) -> Session:
    """One signature of an artifact of ``edgelm.exporters.tflite``, in ONNX Runtime.

    Args:
        artifact: the file's content.
        length: of the signature; ids and mask must have the shape (1, length).

    Raises:
        ExportFailed: tf2onnx does not convert it.
    """
    return engine("onnxruntime").load(from_tflite(alone(artifact, f"tokens_{length}")).SerializeToString(), threads=1)


def difference(model: Network, artifact: bytes, length: int, rows: Sequence[Ids]) -> float:
    """Largest absolute difference of an output from the module's, which runs without padding; infinite for a NaN.

    Args:
        model: the module that the artifact was exported from.
        artifact: the file's content.
        length: of the signature.
        rows: token ids without padding, int32, shape (tokens,) each, of at most that length.

    Raises:
        DataError: there are no rows.
        ExportFailed: as in ``session``.
    """
    if not rows:
        raise DataError("an artifact is read on texts: expected at least one, found none")
    read, worst = session(artifact, length), 0.0
    try:
        for row, expected in zip(rows, outputs(model, rows), strict=True):
            found = read.run(*padded([row], model.config.pad_token_id, length))[0]
            found = found[: len(row)] if found.ndim == 2 else found
            if not np.isfinite(found).all():
                return math.inf
            worst = max(worst, float(np.abs(found.astype(np.float64) - expected).max()))
    finally:
        read.close()
    return worst
