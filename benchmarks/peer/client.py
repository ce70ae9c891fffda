"""The other end of ``worker``: a peer's process, asked from here."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from peer import PeerError

__all__ = ["Worker"]

_HERE = Path(__file__).parent.parent


class Worker:
    """A process of a peer. Use it as a context manager, which ends it.

    Attributes:
        started: nanoseconds of the system's monotonic clock, just before the process was.
        versions: of its packages.
    """

    def __init__(self, python: Path, *arguments: str, threads: int, log: Path, paths: tuple[Path, ...] = ()) -> None:
        """Start it, and wait until it has prepared or loaded.

        Args:
            python: of its environment.
            arguments: as ``worker`` says.
            threads: for every library that reads its number from the environment.
            log: what it writes to standard error is added to this file.
            paths: for it to import from, besides this folder.

        Raises:
            PeerError: it failed, with what it says about that.
        """
        variables = {
            "PYTHONPATH": os.pathsep.join(map(str, (_HERE, *paths))),
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
            "OLIVE_DISABLE_TELEMETRY": "1",
            "CI": "true",  # with which OpenVINO's tools report nothing
        }
        with log.open("a", encoding="utf-8") as errors:
            self.started = time.monotonic_ns()
            self._process = subprocess.Popen(
                [str(python), "-P", "-m", "peer.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | variables,
                text=True,
            )
        try:
            self.versions: dict[str, str] = self._read()["versions"]
        except BaseException:
            self._end()
            raise

    def ask(self, **message: Any) -> dict[str, Any]:
        """Its answer to one message.

        Raises:
            PeerError: it failed.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as exc:
            raise PeerError(f"the process ended with {self._process.wait()}") from exc
        return self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"the process ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise PeerError(found["error"])
        return found

    def _end(self) -> None:
        self._process.kill()  # what it would do on its way out is of no use to anyone
        self._process.communicate()
