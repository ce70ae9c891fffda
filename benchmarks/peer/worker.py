"""The process of one peer: it prepares, or loads and answers what it is asked on standard input, a line of JSON each.

``python -m peer.worker FAMILY KIND FOLDER CHECKPOINT ROWS`` prepares;
``python -m peer.worker FAMILY KIND FOLDER THREADS REQUESTS`` answers until its input ends. The clock runs here, around
the call alone. Whatever libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from peer import Call, Family, PeerError, Request

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Prepare or answer; whatever goes wrong is told as JSON too."""
    family, kind, folder, how, requests = arguments
    tell = _channel()
    try:
        module = cast(Family, importlib.import_module(f"peer.{family}"))
        versions = {name: version(name) for name in module.PACKAGES}
        given = [Request.of(one) for one in json.loads(Path(requests).read_bytes())]
        if not how.isdigit():
            module.prepare(kind, Path(how), Path(folder), given)
            tell({"versions": versions})
            return
        bind = module.load(kind, Path(folder), int(how))
        tell({"versions": versions})
        _serve(cache(lambda index: bind(given[index])), tell)
    except Exception as exc:  # a peer may raise anything, and is listed with it
        lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
        known = isinstance(exc, PeerError)
        tell({"error": " ".join([*([] if known else [f"{type(exc).__name__}:"]), *lines[:2]])[:300]})
        raise


def _serve(call: Callable[[int], Call], tell: Callable[[dict[str, Any]], None]) -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "time" in asked:
            tell(_timed(call(asked["time"]), asked["before"]))
        elif "answer" in asked:
            tell({"answers": [call(index)().tolist() for index in asked["answer"]]})
        else:
            tell(_memory())


def _timed(call: Call, before: int) -> dict[str, Any]:
    """Nanoseconds of one call after so many that are not timed: the other peers had the caches meanwhile."""
    for _ in range(before):
        call()
    gc.disable()
    start = time.monotonic_ns()
    call()
    end = time.monotonic_ns()  # the clock is the system's, so that whoever started this process can subtract
    gc.enable()
    return {"ns": end - start, "at": end}


def _memory() -> dict[str, Any]:
    """Bytes of memory that are resident now: of this process, and its share of what others have mapped too."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return {"rss_bytes": found["Rss"], "pss_bytes": found["Pss"]}


def _channel() -> Callable[[dict[str, Any]], None]:
    """Standard output, which from then on nobody else writes to."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(content: dict[str, Any]) -> None:
        out.write(json.dumps(content) + "\n")
        out.flush()

    return tell


if __name__ == "__main__":
    main(sys.argv[1:])
