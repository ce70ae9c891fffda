"""An environment for each family whose dependencies exclude those of edgelm or of another family."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from peer import PeerError

__all__ = ["python"]

_PINS = Path(__file__).parent


def python(name: str, work: Path) -> Path:
    """The interpreter of an environment, which is made when it is not there or its pins have changed.

    Args:
        name: of a file ``NAME.txt`` beside this one, which lists every package of it; or ``""`` for this one.
        work: folder that the environments lie in.

    Raises:
        PeerError: it cannot be installed.
    """
    if not name:
        return Path(sys.executable)
    folder, pins = work / f"venv-{name}", _PINS / f"{name}.txt"
    found, ready = folder / "bin" / "python", folder / "ready.txt"
    if not ready.exists() or ready.read_bytes() != pins.read_bytes():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [str(found), "-m", "pip", "install", "--quiet", "--requirement", str(pins)]
        done = subprocess.run(install, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise PeerError((lines or ["pip failed without a word"])[0][:300])
        ready.write_bytes(pins.read_bytes())
    return found
