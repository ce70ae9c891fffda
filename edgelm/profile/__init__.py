"""Measuring bundles: runs as raw data, the machine they ran on, statistics derived from them, a report to look at."""

from __future__ import annotations

__all__: list[str] = []
