"""One request to a variant of a bundle, or to an artifact of another tool, between two markers that counter.c knows.

It runs on the emulated core and, as the reference, on the machine itself, where the markers mean nothing. It needs
numpy, msgspec and the engine.

usage: python request.py BUNDLE FILE TOKENS        prints JSON: the engine's version, the logits
       python request.py ARTIFACT VOCAB TOKENS     the same, of an .onnx or .tflite
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgelm.bundle import Bundle
from edgelm.profile.inputs import token_ids
from edgelm.runtimes import Ids, engine

BEGIN, END = 0x45444731, 0x45444730  # as in counter.c
WARMUP = 2  # the first request allocates and packs weights, which later ones do not

Run = Callable[[], Any]


def main() -> None:
    """Load, warm up, and run the request that counts."""
    path, detail, tokens = sys.argv[1:]
    kinds = {".onnx": _onnx, ".tflite": _tflite}
    version, run = kinds.get(Path(path).suffix, _variant)(path, detail, int(tokens))
    for _ in range(WARMUP):
        run()
    mark = ctypes.CDLL(None).prctl
    mark(BEGIN)
    logits = run()
    mark(END)
    print(json.dumps({"version": version, "logits": logits[0].tolist()}))


def _variant(path: str, file: str, tokens: int) -> tuple[str, Run]:
    """As edgelm runs it."""
    bundle = Bundle(path)
    name = next(variant.engine for variant in bundle.manifest.variants if variant.file == file)
    session = engine(name).load(bundle.read(file), threads=1)
    inputs = token_ids(tokens, batch=1, vocab=bundle.manifest.model.vocab)
    return session.explain()["version"], lambda: session.run(*inputs)


def _onnx(path: str, vocab: str, tokens: int) -> tuple[str, Run]:
    """By ONNX Runtime, as people start it with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given, integers = _given(tokens, vocab), {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
    feed = {one.name: given[one.name].astype(integers[one.type]) for one in session.get_inputs()}
    return onnxruntime.__version__, lambda: session.run(None, feed)[0]


def _tflite(path: str, vocab: str, tokens: int) -> tuple[str, Run]:
    """By LiteRT, in the smallest signature that the request fits into."""
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    lengths = {int(name.rpartition("_")[2]): name for name in interpreter.get_signature_list()}
    length = min(length for length in lengths if length >= tokens)
    runner, given = interpreter.get_signature_runner(lengths[length]), _given(tokens, vocab)
    feed = {name: np.pad(given[name], ((0, 0), (0, length - tokens))) for name in runner.get_input_details()}
    return version("ai-edge-litert"), lambda: next(iter(runner(**feed).values()))


def _given(tokens: int, vocab: str) -> dict[str, Ids]:
    ids, mask = token_ids(tokens, batch=1, vocab=int(vocab))
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


if __name__ == "__main__":
    main()
