"""Measuring on another machine over SSH: a copy goes there, a process that outlives the connection measures it."""

from __future__ import annotations

__all__: list[str] = []
