"""What is to be measured on the board, as a file; and ``python -m edgelm.profile.remote.job FOLDER``, which does it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from edgelm.bundle import Bundle
from edgelm.errors import DataError, EdgelmError
from edgelm.profile import files, session
from edgelm.profile.remote import board
from edgelm.progress import Advance
from edgelm.schema import Strict, decode, encode

__all__ = ["Job", "main"]


class Job(Strict, frozen=True, kw_only=True):
    """A measurement: the same words again are the same job.

    Attributes:
        sha256: of the bundle.
        engines: only these.
        precisions: only these.
        threads: for each engine; the physical cores of the board when not given.
        device: of the board, as ``edgelm.load`` takes it.

    The others are those of ``session.asked``.
    """

    sha256: str
    tokens: tuple[int, ...]
    scenario: str | None = None
    sustained: str | None = None
    seconds: float | None = None
    histogram: str | None = None
    rate: float | None = None
    texts: tuple[str, ...] | None = None
    per_layer: bool = False
    energy: bool = False
    engines: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    threads: int | None = None
    device: str = "auto"

    @property
    def name(self) -> str:
        """Of its folder on the board."""
        return f"job-{hashlib.sha256(version('edgelm').encode() + encode(self)).hexdigest()[:16]}"

    def asked(self) -> session.Asked:
        """The same, checked.

        Raises:
            DataError: as ``session.asked``.
        """
        return session.asked(
            tokens=self.tokens,
            scenario=self.scenario,
            sustained=self.sustained,
            seconds=self.seconds,
            histogram=self.histogram,
            rate=self.rate,
            texts=self.texts,
            per_layer=self.per_layer,
            energy=self.energy,
        )


def main(folder: Path) -> None:
    """Measure what a folder on the board asks for, and leave the profile and the outcome there."""
    raw = (folder / board.JOB).read_bytes()
    try:
        job = decode(raw, Job, source=board.JOB, error=DataError)
        asked = job.asked()
        with (folder / board.PROGRESS).open("a", encoding="utf-8") as told:

            @contextmanager
            def progress(name: str, total: int) -> Iterator[Advance]:
                board.tell(told, begin=name, total=total)
                yield lambda units: board.tell(told, advance=units)
                board.tell(told, end=name)

            measured = session.measure(
                Bundle(folder / board.BUNDLE),
                asked,
                engines=job.engines,
                precisions=job.precisions,
                threads=job.threads,
                device=job.device,
                progress=progress,
            )
        files.save(folder / board.PROFILE, measured, force=True)
        board.settle(folder, no_energy=asked.no_energy)
    except EdgelmError as exc:
        board.settle(folder, error=str(exc), exit_code=exc.exit_code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
