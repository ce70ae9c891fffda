"""What runs on the board with the standard library alone: this file goes there as it is, before any edgelm does.

``python board.py ACTION JSON`` prints one JSON object. Everything lies in one folder of the user's cache: a folder for
each job, and an environment that is kept. A job's files say how far it is, so that a second call can go on from there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

__all__ = ["clean", "look", "root", "settle", "start", "tell", "work"]

BOARD, BUNDLE, JOB, LOG = "board.py", "bundle.edgelm", "job.json", "log"
OUTCOME, PART, PROFILE, PROGRESS = "outcome.json", "bundle.part", "profile.json", "progress"
_LOCK = "lock"  # held by the process that measures, and says which one it is
_MADE, _READY = "made", "ready"  # in an environment: it has pip; and what was installed


def root() -> Path:
    """``edgelm-host`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "edgelm-host"


def look(job: str, env: str, extras: str) -> dict[str, Any]:
    """What is here, and how far a job is.

    Args:
        job: name of its folder.
        env: name of the environment that would be used.
        extras: that it must have, as ``litert,loadgen``.
    """
    base = root()
    folder = base / job
    there = next(path for path in (base, *base.parents) if path.exists())
    held = _held()
    outcome = folder / OUTCOME
    copied = next((path for path in (folder / BUNDLE, folder / PART) if path.exists()), None)
    return {
        "folder": str(folder),
        "edgelm": _installed(),
        "ready": _ready(base / env, extras),
        "venv": importlib.util.find_spec("ensurepip") is not None,
        "free": shutil.disk_usage(there).free,
        "bytes": copied.stat().st_size if copied else 0,
        "pid": held.pop(job, None),
        "busy": sorted(held.values()),
        "finished": outcome.stat().st_mtime if outcome.exists() else None,
    }


def start(job: str, sha256: str, env: str | None, wheel: str | None, extras: str) -> dict[str, Any]:
    """Start a job whose files are all here, as a process that outlives this one and the connection.

    Args:
        job: name of its folder.
        sha256: of the bundle; a copy that is another is deleted.
        env: name of the environment to use, made if it is not there; this Python's own when None.
        wheel: of edgelm, in the folder.
        extras: as in ``look``.

    Returns:
        ``pid``, of the process that another call has started if one was quicker; None if the bundle's copy was damaged.
    """
    import fcntl  # a laptop that only reads this file may have none

    folder = root() / job
    with (folder / _LOCK).open("a+") as lock, (folder / LOG).open("ab") as log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return {"pid": _holder(folder / _LOCK)}
        if (folder / PART).exists():
            with (folder / PART).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                (folder / PART).unlink()
                return {"pid": None}
            (folder / PART).rename(folder / BUNDLE)
        for name in (OUTCOME, PROFILE, PROGRESS):
            (folder / name).unlink(missing_ok=True)
        given = json.dumps({"job": job, "env": env, "wheel": wheel, "extras": extras, "lock": lock.fileno()})
        command = [sys.executable, "-P", str(folder / BOARD), "work", given]
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": folder}
        process = subprocess.Popen(command, start_new_session=True, pass_fds=(lock.fileno(),), **options)
        lock.truncate(0)
        print(process.pid, file=lock, flush=True)
        return {"pid": process.pid}


def work(job: str, env: str | None, wheel: str | None, extras: str, lock: int) -> dict[str, Any]:
    """Do a job to its end, whatever that is. Arguments are those of ``start``.

    Besides, ``lock`` is the open file that is locked for as long as this process or the one that measures lives.
    """
    folder = root() / job
    if env is not None and not _ready(root() / env, extras):
        with (folder / PROGRESS).open("a", encoding="utf-8") as told:
            tell(told, begin="make an environment", total=1)
            problem = _make(root() / env, folder / str(wheel), extras)
            tell(told, end="make an environment")
        if problem:
            cure = "repair that, or name a Python that has edgelm with --host-python"
            settle(folder, error=f"no environment could be made: {problem}; {cure}")
            return {}
    python = str(root() / env / "bin" / "python") if env is not None else sys.executable
    command = [python, "-P", "-m", "edgelm.profile.remote.job", str(folder)]
    done = subprocess.run(command, check=False, pass_fds=(lock,))
    if not (folder / OUTCOME).exists():
        settle(folder, error=_died(done.returncode, (folder / LOG).read_text(errors="replace")))
    return {}


def clean(job: str, env: str | None) -> dict[str, Any]:
    """Delete a job, environments of other versions that nobody uses, and our folder if it is empty then.

    Args:
        job: name of its folder, which is gone at once or not at all.
        env: the environment that was used, which is kept.
    """
    base = root()
    if (base / job).exists():
        (base / job).rename(base / f"gone-{job}")
    others = [path for path in base.glob("env-*") if env is not None and path.name != env and not _held()]
    for path in (*base.glob("gone-*"), *others):
        shutil.rmtree(path, ignore_errors=True)
    if not any(base.iterdir()):
        base.rmdir()
    return {}


def settle(folder: Path, **outcome: Any) -> None:
    """Say that a job has ended, and how: ``error`` with its ``exit_code``, or ``no_energy``."""
    staging = folder / f".{OUTCOME}"
    staging.write_text(json.dumps(outcome), encoding="utf-8")
    staging.rename(folder / OUTCOME)


def tell(file: IO[str], **event: Any) -> None:
    """Append to what is followed from afar: ``begin`` with its ``total``, ``advance``, ``end``."""
    file.write(json.dumps(event) + "\n")
    file.flush()


def _held() -> dict[str, int]:
    """The jobs that are being done, with their processes."""
    found = ((path.parent.name, _holder(path)) for path in root().glob(f"job-*/{_LOCK}"))
    return {job: pid for job, pid in found if pid is not None}


def _holder(lock: Path) -> int | None:
    """The process that works on a job, 0 if it has only begun; None if none does."""
    import fcntl

    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0)
    return None


def _installed() -> str | None:
    """The version of edgelm that this Python has, if it can do a job."""
    try:
        return version("edgelm") if importlib.util.find_spec("edgelm.profile.remote.job") else None
    except (PackageNotFoundError, ModuleNotFoundError):
        return None


def _ready(env: Path, extras: str) -> bool:
    """Whether an environment has all that was asked for."""
    if not (env / _READY).exists() or not (env / "bin" / "python").exists():
        return False
    return set(extras.split(",")) <= {"", *(env / _READY).read_text().split(",")}


def _make(env: Path, wheel: Path, extras: str) -> str | None:
    """Make an environment, or go on with one that was not finished; what went wrong, in one line."""
    steps = [[sys.executable, "-m", "venv", "--clear", str(env)]] if not (env / _MADE).exists() else []
    pip = [str(env / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for step in (*steps, [*pip, f"{wheel}[{extras}]" if extras else str(wheel)]):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
            return next((line for line in lines if "Errno 28" in line), lines[-1])
        (env / _MADE).touch()
    (env / _READY).write_text(extras)
    return None


def _died(status: int, log: str) -> str:
    """Why a job has no outcome of its own."""
    if status == -9:
        return "the measurement was killed (signal 9), as Linux does when memory runs out; close other programs there"
    last = next((line for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
    return f"the measurement ended with status {status}: {last}"


if __name__ == "__main__":
    actions: dict[str, Callable[..., dict[str, Any]]] = {"look": look, "start": start, "work": work, "clean": clean}
    print(json.dumps(actions[sys.argv[1]](**json.loads(sys.argv[2]))))
