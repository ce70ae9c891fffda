"""Target devices: one TOML file each. A new target is one file here."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

from edgelm.errors import DeviceUnavailable, RecipeError
from edgelm.manifest import Device
from edgelm.schema import decode

if __name__ != "edgelm.devices":
    raise ImportError("use edgelm.devices: imported from the checkout, this would be a second copy")

__all__ = ["load", "names"]


def names() -> tuple[str, ...]:
    """The names of the packaged profiles, sorted."""
    return tuple(sorted(Path(file.name).stem for file in files(__name__).iterdir() if file.name.endswith(".toml")))


def load(name: str) -> Device:
    """A device profile.

    Args:
        name: of a packaged profile, or the path of a file that ends in ``.toml``.

    Raises:
        DeviceUnavailable: there is no packaged profile of this name.
        RecipeError: the file cannot be read, or has a mistake in it.
    """
    if name.endswith(".toml"):
        return _read(Path(name))
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(names())}"
        raise DeviceUnavailable(f"no device profile named '{name}'; {hint} A file of your own must end in .toml")
    raw = files(__name__).joinpath(f"{name}.toml").read_bytes()
    return decode(raw, Device, source=f"device {name}", error=RecipeError)


def _read(path: Path) -> Device:
    """A profile from a file of the user's."""
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise RecipeError(f"{path}: no such device profile can be read ({exc.strerror})") from exc
    return decode(raw, Device, source=str(path), error=RecipeError)
