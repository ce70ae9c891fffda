"""This edgelm as a wheel, made of the files that run here: a board gets the version that asks, published or not."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib.metadata import distribution
from importlib.resources import files

__all__ = ["RUN_SIDE", "wheel"]

RUN_SIDE = (
    "edgelm",
    "edgelm.devices",
    "edgelm.profile",
    "edgelm.profile.remote",
    "edgelm.profile.report",
    "edgelm.runtimes",
    "edgelm.tasks",
)
"""The packages that a board needs."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_WHEEL = "Wheel-Version: 1.0\nGenerator: edgelm\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel() -> tuple[str, bytes]:
    """A wheel of the run side [PEP 427], whose metadata name what it needs. The same files give the same bytes.

    Returns:
        Its file name and its content.
    """
    found = distribution("edgelm")
    entries = {
        f"{package.replace('.', '/')}/{path.name}": path.read_bytes()
        for package in RUN_SIDE
        for path in sorted(files(package).iterdir(), key=lambda path: path.name)
        if path.is_file()
    }
    info = f"edgelm-{found.version}.dist-info"
    metadata = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
    entries |= {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": _WHEEL.encode()}
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in entries.items()]
    entries[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return f"edgelm-{found.version}-py3-none-any.whl", written.getvalue()


def _digest(content: bytes) -> str:
    """SHA-256 as RECORD has it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
