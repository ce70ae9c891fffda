"""What this machine has and lacks. Plain data: the command line prints it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil

from edgelm import runtimes
from edgelm.devices.machine import detect, machine
from edgelm.errors import DeviceUnavailable
from edgelm.runtimes import cache
from edgelm.runtimes.choose import Fastest
from edgelm.schema import to_dict

__all__ = ["examine"]

# Of a requirement as packages declare them (PEP 508): its name, the extras of its own it asks for, whose extra it is.
_REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+)\s*(?:\[(?P<wants>[^]]*)])?")
_EXTRA = re.compile(r"""extra\s*==\s*['"](?P<extra>[^'"]+)['"]""")
_PACKAGES = {
    "litert": ("ai-edge-litert",),
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime-gpu",
        "onnxruntime-openvino",
        "onnxruntime-directml",
        "onnxruntime-qnn",
    ),
}


def examine() -> dict[str, Any]:
    """Look at this machine; nothing heavy is imported and nothing is changed.

    Returns:
        ``machine`` as in a profile; ``device``, the profile that fits it, or None; ``engines``, for each whether it is
        available, its version, and the cure where it is not; ``extras``, for each whether it is installed, the packages
        it lacks and the line that installs them; ``cache``, the folder, whether it can be written, how much is in it,
        and which variant of which bundle was found to be the fastest here; free memory, and free space on the disk of
        the current folder; ``ok``, whether any engine can run a bundle here.
    """
    engines = [_engine(name) for name in runtimes.names() if name != "null"]
    return {
        "machine": to_dict(machine()),
        "device": _device(),
        "engines": engines,
        "extras": [_extra(name, packages) for name, packages in sorted(_extras().items())],
        "cache": _cache(),
        "memory_free_bytes": int(psutil.virtual_memory().available),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "ok": any(engine["available"] for engine in engines),
    }


def _device() -> str | None:
    """The profile that fits this machine, if one does."""
    try:
        return detect()
    except DeviceUnavailable:
        return None


def _engine(name: str) -> dict[str, Any]:
    """Whether an engine can run here; one that cannot even be imported says why instead of ending the examination."""
    try:
        found = runtimes.engine(name)
        missing, artifacts = found.missing(), found.FORMAT
    except Exception as exc:
        missing, artifacts = f"{type(exc).__name__}: {exc}", ""
    return {
        "engine": name,
        "format": artifacts,
        "available": missing is None,
        "version": next(filter(None, map(_version, _PACKAGES.get(name, (name,)))), None),
        "cure": missing,
    }


def _extra(name: str, packages: Iterable[str]) -> dict[str, Any]:
    """Whether the packages of an extra are there; not whether their versions fit, which is pip's business."""
    lacks = sorted(package for package in packages if _version(package) is None)
    return {"extra": name, "installed": not lacks, "lacks": lacks, "install": f"pip install 'edgelm[{name}]'"}


def _extras() -> dict[str, set[str]]:
    """The packages of each extra that edgelm declares; an extra that names another has its packages too."""
    packages: dict[str, set[str]] = {}
    includes: dict[str, set[str]] = {}
    for requirement in requires("edgelm") or ():
        start, extra = _REQUIREMENT.match(requirement), _EXTRA.search(requirement)
        if start is None or extra is None:
            continue
        own = packages.setdefault(extra["extra"], set())
        if start["name"] == "edgelm":
            wants = (start["wants"] or "").split(",")
            includes.setdefault(extra["extra"], set()).update(want.strip() for want in wants)
        else:
            own.add(start["name"])
    return {name: _closure(name, packages, includes) for name in packages}


def _closure(name: str, packages: dict[str, set[str]], includes: dict[str, set[str]]) -> set[str]:
    """The packages of an extra and of all that it includes."""
    found = set(packages.get(name, ()))
    for other in includes.get(name, ()):
        found |= _closure(other, packages, includes)
    return found


def _version(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cache() -> dict[str, Any]:
    """Where edgelm keeps what it measured on this machine, whether it can, and what it found."""
    folder, files = cache.cache_folder(), cache.files()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    known = [cache.recall(path.stem, Fastest) for path in files if path.name.startswith("fastest-")]
    return {
        "folder": str(folder),
        "writable": there.is_dir() and os.access(there, os.W_OK | os.X_OK),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "fastest": [
            {"variant": one.name} | {name: value for name, value in to_dict(one).items() if name != "schema"}
            for one in known
            if one is not None
        ],
    }
