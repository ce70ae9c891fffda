"""``edgelm profile --host``: the bundle goes to a board, is measured there, and the profile comes home.

A job on the board outlives the connection. Whatever ended a call, the same command goes on from there: with the rest of
the copy, with a measurement that is running, or with a result that waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from edgelm.bundle import Bundle
from edgelm.errors import DeviceUnavailable, EdgelmError
from edgelm.profile.measure import steps
from edgelm.profile.remote import board
from edgelm.profile.remote.follow import follow
from edgelm.profile.remote.job import Job
from edgelm.profile.remote.link import LOST, Link, connect
from edgelm.profile.remote.wheel import wheel
from edgelm.progress import Progress
from edgelm.runs import Profile, read
from edgelm.schema import encode

__all__ = ["profile"]

_PYTHONS = ("python3", "python3.14", "python3.13", "python3.12", "python3.11")
_OLDEST = (3, 11)
_VERSION = re.compile(r"^(\d+) (\d+)$", re.MULTILINE)  # a shell's start-up files may say things of their own
_ENV_BYTES = 600_000_000  # 314 MB of an environment, and as much again while pip is at work

Tell = Callable[[str], None]


@dataclass(frozen=True)
class _Plan:
    """What is to be done: the job, and what would be installed for it where there is no edgelm."""

    job: Job
    content: bytes
    wheel: tuple[str, bytes]
    extras: str

    @property
    def env(self) -> str:
        return f"env-{hashlib.sha256(self.wheel[1]).hexdigest()[:16]}"


def profile(
    bundle: Bundle, host: str, what: Mapping[str, Any], *, python: str | None = None, progress: Progress, tell: Tell
) -> tuple[Profile, str | None]:
    """Measure a bundle on another machine.

    Args:
        bundle: what to measure.
        host: ``user@host``, or a name of ``~/.ssh/config``.
        what: is asked for, by the names of a ``Job``.
        python: of the board, 3.11 or newer; the first that is found when not given. If it has this version of edgelm,
            that is used; else an environment is made beside it.
        progress: told what is being done, here and there.
        tell: what a person should know, a line at a time.

    Returns:
        The profile, and why energy was asked for and is not there.

    Raises:
        DeviceUnavailable: the board cannot be reached, lacks something, or was lost; with what to do.
        EdgelmError: the measurement failed there.
    """
    content = bundle.path.read_bytes()
    job = Job(sha256=hashlib.sha256(content).hexdigest(), **what)
    plan = _Plan(job, content, wheel(), _extras(bundle, job))
    return asyncio.run(_profile(plan, host, python, progress, lambda text: tell(f"{host}: {text}")))


async def _profile(
    plan: _Plan, host: str, python: str | None, progress: Progress, tell: Tell
) -> tuple[Profile, str | None]:
    async with connect(host) as link:
        try:
            there = await _python(link, python)
            seen = await _act(link, there, "look", job=plan.job.name, env=plan.env, extras=plan.extras)
            env = None if seen["edgelm"] == version("edgelm") else plan.env
            pid = await _under_way(link, there, plan, seen, env, progress, tell)
            link.after = "it goes on measuring there, and the same command brings the result home"
            outcome = await follow(link, seen["folder"], pid, progress)
            raw = await link.read(f"{seen['folder']}/{board.PROFILE}")
        except asyncio.CancelledError:
            tell(f"interrupted: {link.after}")
            raise
        await _clean(link, there, plan.job.name, seen["folder"], env, tell)
    if raw is None or "error" in outcome:
        error = EdgelmError(f"{host}: {outcome.get('error', 'there is no profile')}")
        error.exit_code = outcome.get("exit_code", error.exit_code)
        raise error
    return read(raw, source=f"the profile of {host}", error=DeviceUnavailable), outcome.get("no_energy")


async def _under_way(
    link: Link, python: str, plan: _Plan, seen: dict[str, Any], env: str | None, progress: Progress, tell: Tell
) -> int | None:
    """Begin the job, or find it where an earlier call left it; its process, if it has not ended."""
    if seen["finished"]:
        when = datetime.fromtimestamp(seen["finished"]).isoformat(" ", "minutes")
        tell(f"this was measured already, until {when}: its result is taken, and not measured again")
        return None
    if seen["pid"]:
        tell("it is still measuring; what it does is followed")
        return int(seen["pid"])
    makes = env is not None and not seen["ready"]
    _check(link.host, plan, seen, makes=makes)
    if makes:
        tell(f"has no edgelm {version('edgelm')}: an environment is made for it")
    return await _begin(link, python, plan, seen, env, progress)


async def _clean(link: Link, python: str, job: str, folder: str, env: str | None, tell: Tell) -> None:
    """Delete what was copied. A connection that is lost only now costs nobody the result."""
    try:
        await _act(link, python, "clean", job=job, env=env)
    except LOST:
        tell(f"the connection was lost before {folder} was deleted there")
        return
    tell("what was copied is deleted" + (f"; {folder.removesuffix(job)}{env} is kept for the next call" if env else ""))


def _extras(bundle: Bundle, job: Job) -> str:
    """What an environment needs beside the run side."""
    engines = {one.engine for one in bundle.manifest.variants if job.engines is None or one.engine in job.engines}
    return ",".join([*(["litert"] if "litert" in engines else []), *(["loadgen"] if job.scenario else [])])


async def _python(link: Link, given: str | None) -> str:
    """A Python of the board that is new enough."""
    old = list[str]()
    for name in [given] if given else _PYTHONS:
        status, found = await link.run(name, "-c", "import sys; print(*sys.version_info[:2])")
        told = _VERSION.search(found) if status == 0 else None
        if told and (int(told[1]), int(told[2])) >= _OLDEST:
            return name
        if told:
            old.append(f"{name} is {told[1]}.{told[2]}")
    found = ", ".join(old) or f"no {given or _PYTHONS[0]}"
    raise DeviceUnavailable(
        f"{link.host}: expected Python 3.11 or newer, found {found}; install one there, or name it with --host-python"
    )


async def _act(link: Link, python: str, action: str, **given: Any) -> dict[str, Any]:
    """Run one action of ``board.py`` there, which need not have been copied."""
    script = files(board.__package__).joinpath(board.BOARD).read_text(encoding="utf-8")
    status, found = await link.run(python, "-P", "-", action, json.dumps(given), script=script)
    lines = found.splitlines() or [f"exit status {status}"]
    if status:
        raise DeviceUnavailable(f"{link.host}: {python} cannot do what is needed there: {lines[-1]}")
    done: dict[str, Any] = json.loads(lines[-1])
    return done


def _check(host: str, plan: _Plan, seen: dict[str, Any], *, makes: bool) -> None:
    """Refuse a board that cannot do it, before anything is copied."""
    if seen["busy"]:
        raise DeviceUnavailable(
            f"{host}: another profile is being measured there (process {seen['busy'][0]}), and two would disturb each "
            "other; wait for it, or end it there with kill"
        )
    if makes and not seen["venv"]:
        raise DeviceUnavailable(
            f"{host}: its Python can make no environment: sudo apt install python3-venv there, or name a Python that "
            f"has edgelm {version('edgelm')} with --host-python"
        )
    needed = len(plan.content) - seen["bytes"] + (_ENV_BYTES if makes else 0)
    if seen["free"] < needed:
        raise DeviceUnavailable(
            f"{host}: expected {needed / 1e6:.0f} MB free for {seen['folder']}, found {seen['free'] / 1e6:.0f} MB; "
            "free some there, or name another disk in XDG_CACHE_HOME there"
        )


async def _begin(
    link: Link, python: str, plan: _Plan, seen: dict[str, Any], env: str | None, progress: Progress
) -> int:
    """Copy what is not there yet, and start the job; its process."""
    folder, name = seen["folder"], plan.wheel[0]
    await link.folder(folder)
    await link.write(f"{folder}/{board.JOB}", encode(plan.job))
    script = files(board.__package__).joinpath(board.BOARD).read_bytes()
    await link.write(f"{folder}/{board.BOARD}", script)
    if env and not seen["ready"]:
        await link.write(f"{folder}/{name}", plan.wheel[1])
    for have in (seen["bytes"], 0):
        link.after = "the copy is not complete, and the same command goes on with it"
        await _copy(link, f"{folder}/{board.PART}", plan.content, have, progress)
        link.after = "run the same command again"
        given = {"sha256": plan.job.sha256, "env": env, "wheel": name, "extras": plan.extras}
        pid = (await _act(link, python, "start", job=plan.job.name, **given))["pid"]
        if pid is not None:
            return int(pid)
    raise DeviceUnavailable(f"{link.host}: the copy of the bundle is damaged twice; is the disk there sound?")


async def _copy(link: Link, path: str, content: bytes, have: int, progress: Progress) -> None:
    """Copy what is missing of the bundle."""
    if have >= len(content):
        return
    with progress(f"copy to {link.host}", 100) as advance:
        share, done = steps(advance, 100), have
        share(done / len(content))

        def count(size: int) -> None:
            nonlocal done
            done += size
            share(done / len(content))

        await link.write(path, content, offset=have, progress=count)
