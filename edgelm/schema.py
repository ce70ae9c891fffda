"""Strict, frozen structs for the files edgelm owns, and how they are read, written and refused."""

from __future__ import annotations

import difflib
import re
from typing import Any, TypeVar, get_args

import msgspec

from edgelm.errors import EdgelmError

__all__ = ["Strict", "decode", "encode", "to_dict"]


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every format: immutable, and a key that is not known is an error."""


_S = TypeVar("_S", bound=Strict)
_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")


def decode(raw: bytes, kind: type[_S], *, source: str, error: type[EdgelmError]) -> _S:
    """Read a struct from TOML or JSON.

    Args:
        raw: UTF-8 JSON when it begins with ``{``, TOML otherwise.
        kind: the struct to read.
        source: named in the error.
        error: the type of error to raise.

    Raises:
        EdgelmError: of type ``error``, in one line: where, what was expected, and the nearest known key.
    """
    try:
        if raw.lstrip()[:1] == b"{":
            return msgspec.json.decode(raw, type=kind)
        return msgspec.toml.decode(raw, type=kind)
    except msgspec.ValidationError as exc:
        raise error(f"{source}: {_explain(str(exc), kind)}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise error(f"{source}: not readable as {kind.__name__.lower()}: {exc}") from exc


def encode(value: Strict) -> bytes:
    """Write a struct as indented UTF-8 JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def to_dict(value: Strict) -> dict[str, Any]:
    """The struct as plain dicts, lists, strings and numbers."""
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _explain(message: str, kind: type[Strict]) -> str:
    """The message of msgspec message with the path first and, for an unknown key, what may have been meant."""
    found = _PATH.search(message)
    where = (found["path"].lstrip(".") if found else "") or "top level"
    what = _PATH.sub("", message)
    unknown = _UNKNOWN.search(what)
    if unknown is None:
        return f"{where}: {what[0].lower()}{what[1:]}"
    known = _keys(kind, where)
    near = difflib.get_close_matches(unknown["field"], known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
    return f"{where}: unknown key '{unknown['field']}'; {hint}"


def _keys(kind: type[Strict], where: str) -> list[str]:
    """The keys of the struct at a dotted path below ``kind``."""
    for part in [] if where == "top level" else re.split(r"[.\[]", where):
        fields = {f.encode_name: f.type for f in msgspec.structs.fields(kind)}
        nested = [t for t in _structs(fields.get(part))]
        kind = nested[0] if nested else kind
    return [f.encode_name for f in msgspec.structs.fields(kind)]


def _structs(annotation: Any) -> list[type[Strict]]:
    """Every struct named in an annotation such as ``Prune | None`` or ``tuple[Avoid, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _structs(part)]
