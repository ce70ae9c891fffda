"""The original in eager PyTorch, fp32: what every variant is measured beside.

``python -m edgelm.baseline MODEL TOKENS THREADS`` is a fresh process that only loads the checkpoint and runs it: it
prints one JSON object with its peak resident memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import torch

from edgelm import checkpoint
from edgelm.checkpoint import Checkpoint
from edgelm.errors import CheckpointError
from edgelm.model import Encoder
from edgelm.profile.inputs import token_ids
from edgelm.profile.memory import own_peak
from edgelm.profile.subject import Extra
from edgelm.runs import Fresh
from edgelm.runtimes import Ids

__all__ = ["extra", "main"]


def extra(original: Checkpoint, threads: int) -> Extra:
    """The original as something to profile beside the variants; its memory is that of ``main`` below."""
    torch.set_num_threads(threads)
    return Extra(
        engine="pytorch",
        precision="fp32",
        run=_runner(original.model),
        fresh=lambda tokens: Fresh(peak_bytes=_peak(original.source, tokens, threads)),
        provider="eager",
    )


def main(arguments: list[str]) -> None:
    """Load a checkpoint, run it a few times, and print this process's peak as JSON.

    Args:
        arguments: MODEL TOKENS THREADS.
    """
    source, tokens, threads = arguments[0], int(arguments[1]), int(arguments[2])
    torch.set_num_threads(threads)
    model = checkpoint.read(source).model
    run = _runner(model)
    for _ in range(3):
        run(*token_ids(tokens, batch=1, vocab=model.config.vocab_size))
    print(json.dumps({"peak_rss_bytes": own_peak()}))


def _runner(model: Encoder) -> Callable[[Ids, Ids], object]:
    def run(input_ids: Ids, attention_mask: Ids) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))

    return run


def _peak(source: str, tokens: int, threads: int) -> int:
    command = [sys.executable, "-m", "edgelm.baseline", source, str(tokens), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise CheckpointError(f"{source} could not be loaded in a process of its own: {last}")
    return int(json.loads(done.stdout.strip().splitlines()[-1])["peak_rss_bytes"])


if __name__ == "__main__":
    main(sys.argv[1:])
