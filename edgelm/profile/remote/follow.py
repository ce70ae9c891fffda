"""Watching a job on the board through its files: seldom, since whoever watches uses the processor that is measured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from edgelm.errors import DeviceUnavailable
from edgelm.profile.remote import board
from edgelm.profile.remote.link import Link
from edgelm.progress import Progress

__all__ = ["follow"]

_SLOWEST_S, _ALIVE_S = 2.0, 20.0  # between two looks at its files, and at its process


async def follow(link: Link, folder: str, pid: int | None, progress: Progress) -> dict[str, Any]:
    """Show what a job tells, until it has an outcome.

    Args:
        link: to the board.
        folder: of the job.
        pid: of its process, if it is not known to have ended.
        progress: told what the job is told of.

    Returns:
        What ``board.settle`` was given.

    Raises:
        DeviceUnavailable: its process is gone, and left no outcome.
    """
    clock = asyncio.get_running_loop().time
    offset, pause, looked, gone = 0, 0.1, clock(), False
    with ExitStack() as stack:
        shown = _Shown(stack, progress)
        while True:
            outcome = await link.read(f"{folder}/{board.OUTCOME}")
            told = await link.read(f"{folder}/{board.PROGRESS}", offset) or b""
            offset += shown.lines(told)
            if outcome is not None:
                found: dict[str, Any] = json.loads(outcome)
                return found
            if gone:
                raise DeviceUnavailable(
                    f"{link.host}: the measurement ended there without a result, as when a board restarts; "
                    "the same command begins it again"
                )
            if pid and clock() - looked > _ALIVE_S:
                looked = clock()
                gone = (await link.run("kill", "-0", str(pid)))[0] != 0
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_S)


class _Shown:
    """The progress of a job on the board, shown as if it were here."""

    def __init__(self, stack: ExitStack, progress: Progress) -> None:
        self._stack, self._progress = stack, progress
        self._open = list[tuple[ExitStack, Callable[[int], None]]]()

    def lines(self, told: bytes) -> int:
        """Show whole lines; how many bytes they were."""
        whole = told[: told.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._event(json.loads(line))
        return len(whole)

    def _event(self, event: dict[str, Any]) -> None:
        if "begin" in event:
            task = self._stack.enter_context(ExitStack())
            self._open.append((task, task.enter_context(self._progress(event["begin"], event["total"]))))
        elif "advance" in event:
            self._open[-1][1](event["advance"])
        else:
            self._open.pop()[0].close()
