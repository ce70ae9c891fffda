"""What this machine can do at most: multiply-adds a second of a large matrix product, and bytes a second of a copy.

Measured with ONNX Runtime itself, the best remembered in the cache folder: it is the roof of a roofline [Williams
2009], so it has to be what the engine's own kernels reach when nothing but arithmetic, or memory, holds them up.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from edgelm.devices.machine import fingerprint, machine
from edgelm.profile.gemm import model
from edgelm.runs import Peak
from edgelm.runtimes.cache import cache_folder

__all__ = ["measured", "peak"]

_SIZE = 512  # of the matrices: large enough for the kernels, and done before a scheduler interrupts
_COPY = 64 * 2**20  # bytes: more than the caches of the machines we know
_SECONDS = 0.5


def peak(threads: int) -> Peak:
    """The best that was ever measured on this machine, now or earlier: whatever is less was disturbed.

    A cache folder that cannot be written is no error: what is measured now has to do then.
    """
    words = (fingerprint(machine()), f"threads-{threads}", f"onnxruntime-{version('onnxruntime')}")
    path = cache_folder() / f"peak-{'-'.join(words)}.json"
    found = measured(threads)
    try:
        found = _better(found, msgspec.json.decode(path.read_bytes(), type=Peak))
    except (OSError, msgspec.DecodeError):
        pass  # nothing is remembered yet
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(msgspec.json.encode(found))
        Path(file.name).replace(path)
    except OSError:
        pass
    return found


def _better(one: Peak, other: Peak) -> Peak:
    """The larger of each figure."""
    return Peak(
        fp32_macs=max(one.fp32_macs, other.fp32_macs),
        int8_macs=max(one.int8_macs, other.int8_macs),
        bytes=max(one.bytes, other.bytes),
        threads=one.threads,
    )


def measured(threads: int, *, size: int = _SIZE, copied: int = _COPY, seconds: float = _SECONDS) -> Peak:
    """Measure now.

    Args:
        threads: of the engine, and of the copy.
        size: rows and columns of the matrices.
        copied: bytes of the copy.
        seconds: for each of the three, at least.
    """
    return Peak(
        fp32_macs=size**3 / _best(_product("MatMul", size, threads), seconds),
        int8_macs=size**3 / _best(_product("MatMulInteger", size, threads), seconds),
        bytes=2 * copied / _copying(copied, threads, seconds),
        threads=threads,
    )


def _product(op: Literal["MatMul", "MatMulInteger"], size: int, threads: int) -> Callable[[], Any]:
    """A product of two square matrices on ONNX Runtime."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # on by default in the wheels from 1.29 on
    import onnxruntime

    random = np.random.default_rng(0)
    if op == "MatMul":
        x, weights = (random.standard_normal((size, size), np.float32) for _ in range(2))
    else:
        x = random.integers(0, 256, (size, size), np.uint8)
        weights = random.integers(-127, 128, (size, size), np.int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    content = model(op, size, weights)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["y"], {"x": x})


def _copying(count: int, threads: int, seconds: float) -> float:
    """The best time of a copy, each thread with a part of it: numpy lets go of the interpreter meanwhile."""
    source, target = np.ones(count, np.uint8), np.zeros(count, np.uint8)
    edges = [count * part // threads for part in range(threads + 1)]
    parts = [slice(low, high) for low, high in itertools.pairwise(edges)]
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

        return _best(copy, seconds)


def _best(call: Callable[[], Any], seconds: float) -> float:
    """The shortest time of a call, in seconds: whatever is longer was disturbed."""
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best
