"""Peak resident memory of a fresh process that only loads and runs one variant.

``python -m edgelm.profile.memory BUNDLE FILE TOKENS THREADS [BATCH]`` is that process: it prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from edgelm.errors import DeviceUnavailable

__all__ = ["main", "own_peak", "peak_rss"]

_REQUESTS = 3  # the engines allocate on the first request and keep what they have


def peak_rss(bundle: Path, file: str, *, tokens: int, threads: int, batch: int = 1) -> int:
    """Measure a variant in a process of its own.

    Args:
        bundle: the ``.edgelm`` file.
        file: the variant's name in it.
        tokens: length of the request.
        threads: for the engine.
        batch: rows a request.

    Returns:
        Bytes: the interpreter and the libraries are in it, because an app needs them too.

    Raises:
        DeviceUnavailable: the process failed; the last line that it wrote is in the message.
    """
    numbers = [str(tokens), str(threads), str(batch)]
    command = [sys.executable, "-m", "edgelm.profile.memory", str(bundle), file, *numbers]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise DeviceUnavailable(f"{file} could not be loaded and run in a process of its own: {last}")
    return int(json.loads(done.stdout.strip().splitlines()[-1])["peak_rss_bytes"])


def own_peak() -> int:
    """Highest resident memory of this process so far, in bytes."""
    # Not ru_maxrss on Linux: it is inherited through fork and exec, so that a small child of a large parent reports
    # the parent's size. VmHWM belongs to the address space, which exec replaces.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return _peak_elsewhere()
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return _peak_elsewhere()  # a kernel that leaves the line out (gVisor does)


def _peak_elsewhere() -> int:
    """The peak on a system without ``/proc``."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others kibibytes


def main(arguments: list[str]) -> None:
    """Load one variant, run it a few times, and print this process's peak as JSON.

    Args:
        arguments: BUNDLE FILE TOKENS THREADS [BATCH].
    """
    # Imported here, so that the parent that only calls `peak_rss` does not need them.
    from edgelm.bundle import Bundle
    from edgelm.profile.inputs import token_ids
    from edgelm.runtimes import engine

    path, file, *numbers = arguments
    tokens, threads, batch = (int(number) for number in [*numbers, "1"][:3])
    bundle = Bundle(Path(path))
    variant = next(variant for variant in bundle.manifest.variants if variant.file == file)
    ids, mask = token_ids(tokens, batch=batch, vocab=bundle.manifest.model.vocab)
    session = engine(variant.engine).load(bundle.read(file), threads=threads)
    for _ in range(_REQUESTS):
        session.run(ids, mask)
    print(json.dumps({"peak_rss_bytes": own_peak()}))


if __name__ == "__main__":
    main(sys.argv[1:])
