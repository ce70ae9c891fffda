"""What the figures of benchmarks/peers.json say, and whether what was aimed at is reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgelm.profile.table import TIMES
from peer.table import BASE, COMPRESSED, OURS, PEERS, REFERENCE, TEACHER

__all__ = ["TOKENS", "Parts", "Row", "artifacts", "cell", "executed", "length", "medians", "timed", "verdicts"]

TOKENS = 32
"""The length of a request by which peers are compared in short."""

_BEHIND, _LOSS, _FASTER_THAN_PEERS, _FASTER_THAN_EAGER = 1.03, 1.0, 2.0, 15.0

Row = dict[str, Any]
Parts = dict[str, Row]


def timed(parts: Parts) -> list[str]:
    """Models whose latencies were measured."""
    return [model for model in (BASE, TEACHER) if model in parts and not parts[model].get("unfinished")]


def cell(parts: Parts, model: str, tokens: int, batch: int) -> Row:
    """What was measured of a model at one length and batch."""
    rows: list[Row] = parts[model]["rows"]
    return next(row for row in rows if (row["tokens"], row["batch"]) == (tokens, batch))


def medians(row: Row) -> dict[str, float]:
    """Milliseconds by peer."""
    return {name: statistics.median(ns) / 1e6 for name, ns in row["ns"].items() if ns}


def artifacts(parts: Parts, model: str) -> dict[str, Row]:
    """What every peer made of a model, by peer, in the order of the tables."""
    found = {row["peer"]: row for row in parts["artifacts"]["rows"] if row["model"] == model}
    return {peer.name: found[peer.name] for peer in PEERS if peer.name in found}


def length(tokens: int) -> str:
    """A length in words."""
    return f"{tokens} tokens" if tokens else "SST-2's own lengths"


def verdicts(parts: Parts) -> Iterator[str]:
    """Whether what was aimed at is reached, a line each."""
    if found := [gap for model in timed(parts) for row in parts[model]["rows"] if (gap := _gap(model, row))]:
        yield _never_behind(found)
    if TEACHER in parts and "artifacts" in parts:
        yield from _compressed(parts)
    if "arm" in parts and not parts["arm"].get("unfinished"):
        yield _on_arm(parts["arm"]["rows"])


@dataclass(frozen=True)
class Gap:
    """Of one cell: what ``auto`` takes, of what the fastest peer takes."""

    model: str
    length: str
    batch: int
    factor: float
    fastest: str


def _gap(model: str, row: Row) -> Gap | None:
    found = medians(row)
    others = {name: ms for name, ms in found.items() if not name.startswith("edgelm")}
    if OURS not in found or not others:
        return None
    fastest = min(others, key=lambda name: others[name])
    return Gap(model, length(row["tokens"]), row["batch"], found[OURS] / others[fastest], fastest)


def _never_behind(found: list[Gap]) -> str:
    behind = sorted((gap for gap in found if gap.factor > _BEHIND), key=lambda gap: -gap.factor)
    good, ahead = len(found) - len(behind), sum(gap.factor < 1 for gap in found)
    line = (
        f"Unpruned, `auto` is at most {100 * (_BEHIND - 1):.0f} % behind the fastest peer: **in {good} of {len(found)} "
        f"cells**, and ahead of it in {ahead}."
    )
    told = [
        f"{gap.model}, {gap.length}, batch {gap.batch}: {100 * (gap.factor - 1):.0f} % behind {gap.fastest}"
        for gap in behind
    ]
    return f"{line} Not in: {'; '.join(told)}." if told else line


def _compressed(parts: Parts) -> Iterator[str]:
    found, rows = medians(cell(parts, TEACHER, TOKENS, 1)), artifacts(parts, TEACHER)
    if COMPRESSED not in found or "accuracy" not in rows[COMPRESSED]:
        return
    loss = 100 * (rows[REFERENCE]["accuracy"] - rows[COMPRESSED]["accuracy"])
    yield (
        f"Compressed (`{parts['artifacts']['compressed']}`), at most {_LOSS:.1f} point of accuracy is lost: "
        f"**{_yes(loss <= _LOSS)}**, {loss:.2f} points."
    )
    others = {name: ms for name, ms in found.items() if not name.startswith("edgelm")}
    fastest = min(others, key=lambda name: others[name])
    for name, aim in ((fastest, _FASTER_THAN_PEERS), (REFERENCE, _FASTER_THAN_EAGER)):
        factor = found[name] / found[COMPRESSED]
        who = f"the fastest peer, {name}" if name == fastest else name
        line = f"Compressed, {TOKENS} tokens, {aim:.0f} times as fast as {who}"
        yield f"{line}: **{_yes(factor >= aim)}**, {factor:.1f}{TIMES}."


def executed(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Instructions of a request by core, of every artifact that ran on emulated cores."""
    return {
        row["peer"]: {count["core"]: count["instructions"] for count in row["counts"]}
        for row in rows
        if "counts" in row
    }


def _on_arm(rows: list[Row]) -> str:
    found, told = executed(rows), list[str]()
    for core in next(iter(found.values())):
        least = dict[str, int]()
        for name, counts in found.items():
            who = "compressed" if name.startswith("edgelm compressed") else "edgelm" if "edgelm" in name else "peers"
            least[who] = min(least.get(who, counts[core]), counts[core])
        ratios = [f"{least['peers'] / least[who]:.2f}{TIMES}" for who in ("edgelm", "compressed") if who in least]
        told.append(f"{' and '.join(ratios)} on {core}")
    return (
        f"ARM instructions, {TOKENS} tokens, a cost, not a latency: the peers' least artifact takes, of what edgelm's "
        f"least takes unpruned and compressed, {', '.join(told)}."
    )


def _yes(reached: bool) -> str:
    return "reached" if reached else "not reached"
