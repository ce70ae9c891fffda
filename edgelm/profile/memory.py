"""Memory and start of a fresh process that only loads and runs one variant.

``python -m edgelm.profile.memory BUNDLE FILE TOKENS THREADS BATCH DEVICE STARTED`` is that process: it prints a JSON
object.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from edgelm.errors import DeviceUnavailable
from edgelm.runs import Fresh

__all__ = ["fresh", "main", "own_peak"]

_REQUESTS = 20  # the engines allocate on the first request and keep what they have; the others give the steady state
_REST_S = 0.5


def fresh(bundle: Path, file: str, *, tokens: int, threads: int, batch: int = 1, device: str = "cpu") -> Fresh:
    """Measure a variant in a process of its own.

    Args:
        bundle: the ``.edgelm`` file.
        file: the variant's name in it.
        tokens: length of the request.
        threads: for the engine.
        batch: rows a request.
        device: to run on, as ``edgelm.load`` takes it.

    Returns:
        Times and memory: the interpreter and the libraries are in them, because an app needs them too.

    Raises:
        DeviceUnavailable: the process failed; the last line that it wrote is in the message.
    """
    words = [str(word) for word in (tokens, threads, batch, device, time.monotonic_ns())]
    command = [sys.executable, "-m", "edgelm.profile.memory", str(bundle), file, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise DeviceUnavailable(f"{file} could not be loaded and run in a process of its own: {last}")
    return msgspec.json.decode(done.stdout.strip().splitlines()[-1], type=Fresh)


def own_peak() -> int:
    """Highest resident memory of this process so far, in bytes."""
    # Not ru_maxrss on Linux: it is inherited through fork and exec, so that a small child of a large parent reports
    # the parent's size. VmHWM belongs to the address space, which exec replaces.
    found = _told("status", "VmHWM:")
    return _peak_elsewhere() if found is None else found  # a kernel may leave the line out (gVisor does)


def _told(file: str, field: str) -> int | None:
    """Bytes that a file of ``/proc/self`` gives for a field; None on a system without it."""
    try:
        text = Path("/proc/self", file).read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(field)), None)


def _resident() -> int:
    """Resident memory of this process now, in bytes."""
    found = _told("status", "VmRSS:")
    if found is not None:
        return found
    import psutil

    return int(psutil.Process().memory_info().rss)


def _peak_elsewhere() -> int:
    """The peak on a system without ``/proc``."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others kibibytes


def main(arguments: list[str]) -> None:
    """Load one variant, run it, rest, and print what this process took as JSON.

    Args:
        arguments: BUNDLE FILE TOKENS THREADS BATCH DEVICE STARTED, the last in nanoseconds of the system's monotonic
            clock.
    """
    # Imported here, so that the parent that only calls `fresh` does not need them.
    from edgelm.bundle import Bundle
    from edgelm.profile.inputs import token_ids
    from edgelm.runtimes import load as load_variant
    from edgelm.runtimes.place import parse

    path, file, *numbers, device, begun = arguments
    (tokens, threads, batch), started = (int(number) for number in numbers), int(begun)
    answered = 0
    begin = time.monotonic_ns()
    bundle = Bundle(Path(path))
    variant = next(variant for variant in bundle.manifest.variants if variant.file == file)
    session = load_variant(bundle, variant, threads=threads, place=parse(device))
    load = time.monotonic_ns() - begin
    ids, mask = token_ids(tokens, batch=batch, vocab=bundle.manifest.model.vocab)
    times = list[int]()
    for _ in range(_REQUESTS):
        begin = time.monotonic_ns()
        session.run(ids, mask)
        times.append(time.monotonic_ns() - begin)
        answered = answered or time.monotonic_ns()
    resident, peak = _resident(), own_peak()
    time.sleep(_REST_S)
    told = Fresh(
        peak_bytes=peak,
        cold_ns=answered - started,  # the monotonic clock is the system's, the same in every process
        load_ns=load,
        first_ns=times[0],
        steady_ns=int(statistics.median(times[1:])),
        resident_bytes=resident,
        rest_bytes=_resident(),
        proportional_bytes=_told("smaps_rollup", "Pss:"),
    )
    print(json.dumps(msgspec.to_builtins(told)))


if __name__ == "__main__":
    main(sys.argv[1:])
