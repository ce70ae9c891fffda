"""What measuring found, as JSON objects and as tables for a terminal. The JSON keys are a contract (docs/cli.md)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgelm import console
from edgelm.profile import stats, table, table_layers, table_load
from edgelm.profile.compare import Change, Comparison, Limit
from edgelm.profile.conditions import harness
from edgelm.profile.doubts import change, doubts
from edgelm.profile.layers import by_layer
from edgelm.profile.scenarios import throughput
from edgelm.profile.sustained import windows
from edgelm.runs import Peak, Profile, Run
from edgelm.schema import to_dict

__all__ = ["compare_json", "compared", "profile_json", "profiled"]


def profile_json(profile: Profile, no_energy: str | None = None) -> dict[str, Any]:
    """``runs[]`` with their statistics, beside the raw samples that they are derived from, and ``machine``.

    Args:
        profile: what was measured.
        no_energy: why energy was asked for and is not there.
    """
    more: dict[str, Any] = {"peak": to_dict(profile.peak)} if profile.peak else {}
    return {
        **more,
        **({"no_energy": no_energy} if no_energy else {}),
        "runs": [_run(run, profile.peak) for run in profile.runs],
        "machine": to_dict(profile.machine),
        "load": [profile.load_start, profile.load_end],
        "notes": list(doubts(profile)),
    }


def profiled(profile: Profile, no_energy: str | None = None) -> None:
    """Every run, the machine, and what to know before trusting them; ``no_energy`` as in ``profile_json``."""
    kinds = {run.scenario for run in profile.runs}
    if kinds == {"sustained"}:
        for run in profile.runs:
            _print(table_load.sustained(run))
            console.out.print(table_load.headline(run))
    elif "quick" in kinds:
        _print(table.latency(profile))
        if words := harness(profile):
            console.out.print(f"Harness: {words}")
        for made in (table_load.starts(profile), table_load.memories(profile)):
            if made.rows:
                _print(made)
        _deeper(profile)
    else:
        _print(table_load.scenarios(profile))
    machine = profile.machine
    console.out.print(", ".join([machine.cpu, f"{machine.cores} cores", *machine.gpus, machine.system]))
    unknown = [f"energy is not available, because {no_energy}"] if no_energy else []
    for text in (*doubts(profile), *unknown):
        console.err.print(f"[yellow]note:[/yellow] {text}")


def compare_json(found: Comparison, failed: Sequence[tuple[Change, Limit]]) -> dict[str, Any]:
    """``changes[]``, ``failed[]`` and what only one of the two has."""
    return {
        "changes": [_change(one) for one in found.changes],
        "failed": [{"limit": str(limit), **_change(one)} for one, limit in failed],
        "only_before": list(found.only_before),
        "only_after": list(found.only_after),
        "notes": list(found.notes),
    }


def compared(found: Comparison) -> None:
    """Every metric of what both have: the verdict, before, after, the change with its 95 % interval."""
    for name, group in itertools.groupby(found.changes, key=lambda one: one.run):
        rows = tuple((one.metric, one.verdict, *_values(one), *change(one.factor).split(" %, ")) for one in group)
        _print(table.Table(name, ("metric", "verdict", "before", "after", "change, %", "95 %"), rows))
    for words, names in (("before", found.only_before), ("after", found.only_after)):
        if names:
            console.err.print(f"only in the profile {words}: {'; '.join(names)}", markup=False)
    for text in found.notes:
        console.err.print(f"[yellow]note:[/yellow] {text}")


def _values(one: Change) -> tuple[str, str]:
    """Before and after, of latencies in milliseconds."""
    if one.metric == "peak_rss":
        return table.size(int(one.before)), table.size(int(one.after))
    return f"{table.milliseconds(one.before)} ms", f"{table.milliseconds(one.after)} ms"


def _deeper(profile: Profile) -> None:
    """Layers and energy, of the runs that have them."""
    found = [run for run in profile.runs if run.ops]
    for run in found:
        _print(table_layers.layers(run, profile.peak))
        if words := table_layers.pieces(run):
            console.out.print(words)
    if found and profile.peak:
        console.out.print(table_layers.roofline(profile.peak))
    if any(run.energy for run in profile.runs):
        _print(table_layers.energy(profile))


def _run(run: Run, peak: Peak | None) -> dict[str, Any]:
    ranges = {f"{name}_95_ms": [one.low, one.high] for name, one in stats.intervals(run).items()}
    known = {"before": to_dict(run.before), "after": to_dict(run.after)}
    more: dict[str, Any] = {"fresh": to_dict(run.fresh) if run.fresh else None, "provider": run.provider}
    if run.scenario != "quick":
        more |= {
            "a_second": throughput(run),
            "verdict": run.verdict or None,
            "loadgen_ns": run.loadgen_ns,
            "at_ns": list(run.at_ns),
        }
    if run.ops:
        more |= {"layers": [asdict(one) for one in by_layer(run, peak)], "ops": [to_dict(op) for op in run.ops]}
    if run.energy:
        more |= {"energy": to_dict(run.energy)}
    if run.scenario == "sustained":
        more |= {"windows": [asdict(one) for one in windows(run)], "every": run.every}
    return stats.row(run) | ranges | known | more | {"samples_ns": list(run.samples_ns)}


def _change(one: Change) -> dict[str, Any]:
    plain = asdict(one)
    factor = plain.pop("factor")
    return plain | {"change": factor["value"] - 1, "low": factor["low"] - 1, "high": factor["high"] - 1}


def _print(made: table.Table) -> None:
    console.out.print()
    console.out.print(console.table(made.title, made.columns, made.rows))
