"""A fresh process that loads a model, answers one sentence and says when: what an app's user waits for.

usage: python fresh.py HOW STARTED PATH [FILE TOKENIZER]

``HOW`` is ``edgelm:ENGINE``, ``first:ENGINE`` (the same, where nothing is remembered of earlier loads), ``bare:ENGINE``
(the engine and the tokenizer without us) or ``transformers``; ``STARTED`` is the monotonic clock just before the
process was started. Prints JSON: seconds since then, peak resident memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = "how much money do i have in my account and when does the next payment arrive"


def main() -> None:
    """Answer, then say how long it took."""
    how, started, path, *rest = sys.argv[1:]
    kind, _, engine = how.partition(":")
    known: dict[str, Callable[..., None]] = {"edgelm": edgelm_answers, "first": edgelm_answers, "bare": bare_answers}
    answer = known.get(kind, transformers_answers)
    answer(engine, path, *rest)
    seconds = time.monotonic() - float(started)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": int(status["VmHWM"].split()[0]) * 1024}))


def edgelm_answers(engine: str, path: str) -> None:
    """By us."""
    import edgelm

    model = edgelm.load(path, engine=engine or None)
    assert model(TEXT)[0]["score"] > 0


def bare_answers(engine: str, path: str, tokenizer: str) -> None:
    """By the engine, from a file of its own."""
    import numpy as np
    from tokenizers import Tokenizer

    ids = np.array([Tokenizer.from_file(tokenizer).encode(TEXT).ids], np.int32)
    threads = len(os.sched_getaffinity(0))
    logits = (onnxruntime_runs if engine == "onnxruntime" else litert_runs)(path, ids, threads)
    assert np.isfinite(logits).all()


def onnxruntime_runs(path: str, ids: Any, threads: int) -> Any:
    """ONNX Runtime, as its documentation shows it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]


def litert_runs(path: str, ids: Any, threads: int) -> Any:
    """LiteRT, as its documentation shows it."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    lengths = sorted(int(name.split("_")[1]) for name in interpreter.get_signature_list())
    length = next(length for length in lengths if length >= ids.shape[1])
    padded, mask = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
    padded[0, : ids.shape[1]], mask[0, : ids.shape[1]] = ids, 1
    return interpreter.get_signature_runner(f"tokens_{length}")(input_ids=padded, attention_mask=mask)["logits"]


def transformers_answers(engine: str, path: str) -> None:
    """By ``transformers.pipeline``."""
    from transformers import pipeline

    assert pipeline("text-classification", model=path)(TEXT)


if __name__ == "__main__":
    main()
