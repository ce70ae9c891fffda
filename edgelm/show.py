"""What a command found, as JSON objects and as tables for a terminal. The JSON keys are a contract (docs/cli.md)."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgelm import console
from edgelm.bundle import Bundle
from edgelm.manifest import Device, Manifest, Variant
from edgelm.profile import stats, table
from edgelm.profile.doubts import doubts
from edgelm.runs import Profile
from edgelm.schema import to_dict

__all__ = [
    "answers",
    "budget",
    "build_json",
    "built",
    "compressed",
    "device",
    "devices",
    "doctor",
    "exported",
    "inspect_json",
    "inspected",
    "planned",
    "scores",
    "verified",
]


def build_json(bundle: Bundle) -> dict[str, Any]:
    """``bundle``, ``baseline`` and ``variants[]``; of a bundle with a profile, each with its ``runs[]``."""
    profile = bundle.profile
    baseline = to_dict(bundle.manifest.baseline) | _runs_of(profile, table.ORIGINAL, "fp32")
    machine = {"machine": to_dict(profile.machine)} if profile else {}
    return {"bundle": str(bundle.path), "baseline": baseline, "variants": _variants(bundle, profile), **machine}


def inspect_json(bundle: Bundle) -> dict[str, Any]:
    """The manifest, whose ``variants[]`` are those of ``build_json``, and the size of the file."""
    variants = _variants(bundle, bundle.profile)
    return to_dict(bundle.manifest) | {"variants": variants, "bytes": bundle.path.stat().st_size}


def built(bundle: Bundle, profile: Profile, html: Path, example: str) -> None:
    """The tables that end a build, in words that a newcomer understands, and what to try next.

    Args:
        bundle: what was built.
        profile: of the bundle.
        html: the report.
        example: a text that the model may be asked.
    """
    manifest, out = bundle.manifest, bundle.path
    _print(table.overview(manifest, profile, bundle.downloads).without(*table.SIZES))  # all of it is over 80 columns
    _print(table.sizes(manifest, profile, bundle.downloads))
    base = manifest.baseline
    console.out.print(
        f"\n[bold]{out}[/bold] holds {len(manifest.variants)} variants of one model of "
        f"{manifest.model.parameters / 1e6:.1f} M parameters, from {base.parameters / 1e6:.1f} M. "
        "Agreement: how often it answers as the original does."
    )
    for warning in doubts(profile):
        console.err.print(f"[yellow]note:[/yellow] {warning}")
    us = _this_command()
    commands = (["run", out, example], ["profile", out, "--html", html], ["inspect", out])
    lines = [shlex.join([us, *map(str, command)]) for command in commands]
    console.out.print("\nTry next:", *lines, f"\nThe report: {html}", sep="\n  ", markup=False, soft_wrap=True)


def compressed(found: dict[str, Any], out: Path) -> None:
    """What compression left of the original."""
    before, after = found["baseline"], found["model"]
    scores = {"before": found["baseline"]["score"], "after": found["score"]}
    zeros = found["compression"].get("sparsity")
    facts = [
        ("size", f"{before['parameters'] / 1e6:.2f} M parameters before, {after['parameters'] / 1e6:.2f} M after"),
        *_widths(after["heads"], after["ffn"], after["strides"]),
        ("vocab", f"{after['vocab']} rows"),
        *([("zeros", f"{zeros['zeros'] / zeros['weights']:.1%} of {zeros['weights']} weights")] if zeros else []),
        *((name, f"{score['metric']} {score['value']:.4f} on {score['n']}") for name, score in scores.items() if score),
    ]
    _facts(facts)
    budget(found["compression"].get("budget"))
    console.out.print(f"\n[bold]{out}[/bold]: edgelm export {out} --device NAME --out FILE")


def _widths(heads: Sequence[int], ffn: Sequence[int], strides: Sequence[int]) -> list[tuple[str, str]]:
    """Of each layer, as facts; of strides nothing where all rows are computed."""
    found = [("heads", " ".join(map(str, heads)) or "unknown"), ("FFN", " ".join(map(str, ffn)) or "unknown")]
    return [*found, ("strides", " ".join(map(str, strides)))] if strides else found


def budget(found: dict[str, Any] | None) -> None:
    """The budget, what was predicted, and what was measured if it was; nothing if there is no budget."""
    if found is None:
        return
    measured = found.get("measured") or {}
    rows = []
    for key, words, form in (("p50_ms", f"p50 at {found['tokens']} tokens, ms", "{:.3g}"), ("bytes", "bytes", "{:,}")):
        values = (found[key], found["predicted"][key], measured.get(key))
        rows.append((words, *("any" if v is None and i == 0 else _or_none(v, form) for i, v in enumerate(values))))
    if found["points"] is not None:
        rows.append(("points", f"{found['points']:g}", table.NONE, _or_none(found.get("points_lost"), "{:.2f}")))
    title = f"budget: {found['engine']} {found['precision']}, threads {found['threads']}, {found['machine']}"
    _print(table.Table(title, ("what", "allowed", "predicted", "measured"), tuple(rows)))


def planned(found: dict[str, Any]) -> None:
    """What compression would do, step by step, and what it is predicted to leave."""
    steps = [
        (name, " ".join(f"{key}={value}" for key, value in step.items() if value is not None))
        for name, step in found["steps"].items()
    ]
    before, after = found["before"], found["after"]
    changes = [
        *_widths(after["heads"], after["ffn"], after["strides"]),
        ("vocab", f"{before['vocab']} rows to {after['vocab']}"),
        ("MACs", f"{before['macs']:,} to {after['macs']:,} a token (/ {before['macs'] / max(1, after['macs']):.2f})"),
        ("size", f"{before['parameters'] / 1e6:.2f} M parameters to {after['parameters'] / 1e6:.2f} M"),
    ]
    _facts([*steps, *changes])
    budget(found["budget"])


def exported(bundle: Bundle) -> None:
    """Each variant with its sizes, parity and score."""
    _print(table.parity(bundle.manifest))
    _print(_files(bundle.manifest))
    _print(table.sizes(bundle.manifest, None, bundle.downloads))
    console.out.print(f'\n[bold]{bundle.path}[/bold]: edgelm run {bundle.path} "some text"')


def inspected(bundle: Bundle) -> None:
    """What is inside a bundle."""
    manifest, model = bundle.manifest, bundle.manifest.model
    labels = ", ".join(manifest.labels[:6]) + (", …" if len(manifest.labels) > 6 else "")
    facts = [
        ("file", f"{bundle.path}, {table.size(bundle.path.stat().st_size)}"),
        ("made", f"{manifest.created} by edgelm {manifest.edgelm}, for {manifest.device}"),
        ("task", f"{manifest.task}, {len(manifest.labels)} labels: {labels}"),
        (
            "model",
            f"{model.parameters / 1e6:.1f} M parameters from {model.source}, dim {model.dim or 'unknown'}, "
            f"vocabulary {model.vocab}",
        ),
        *_widths(model.heads, model.ffn, model.strides),
        ("limit", f"{manifest.max_tokens} tokens; longer texts are cut"),
    ]
    _facts(facts)
    _print(_files(manifest))
    _print(table.sizes(manifest, bundle.profile, bundle.downloads))
    _print(table.parity(manifest))


def scores(results: Iterable[dict[str, Any]]) -> None:
    """The task metric of each variant."""
    rows = [(r["engine"], r["precision"], f"{r['value']:.4f}", str(r["n"])) for r in results]
    console.out.print(console.table("", ("engine", "precision", "accuracy", "texts"), rows))


def answers(texts: Sequence[str], found: Sequence[Any]) -> None:
    """One line for each text."""
    for text, answer in zip(texts, found, strict=True):
        print(f"{_said(answer)}\t{text}")  # not through rich, which would turn the tab into spaces


def _said(answer: Any) -> str:
    """An answer of any task in a few words."""
    if isinstance(answer, Mapping):
        words = next(str(answer[key]) for key in ("label", "answer", "token_str", "word") if key in answer)
        kind = next((f"{answer[key]} " for key in ("entity_group", "entity") if key in answer), "")
        return f"{kind}{words} {answer['score']:.3f}"
    if answer and isinstance(answer[0], float):
        return f"[{', '.join(f'{number:.3f}' for number in answer[:4])}, … {len(answer)} in all]"
    return ", ".join(f"({_said(one)})" if isinstance(one, list) else _said(one) for one in answer) or table.NONE


def devices(known: Iterable[Device], here: str) -> None:
    """Known targets; the one that this machine is stands out."""
    rows = [
        (d.name + (" (this machine)" if d.name == here else ""), d.description, ", ".join(d.precisions), str(d.threads))
        for d in known
    ]
    console.out.print(console.table("", ("device", "what it is", "precisions", "threads"), rows))


def device(one: Device) -> None:
    """One target, each figure with its source."""
    facts = [
        ("device", f"{one.name}: {one.description}"),
        ("needs", f"{one.arch} with {', '.join(one.isa) or 'nothing special'}"),
        ("prefers", f"{', '.join(one.formats)} in {', '.join(one.precisions)}; {one.threads} threads"),
        ("widths", f"multiples of {one.width_multiple}"),
    ]
    _facts(facts)
    for avoid in one.avoid:
        console.out.print(f"\navoids {avoid.precision}: {avoid.reason}", markup=False, soft_wrap=True)
        if avoid.source:
            console.out.print(f"  {avoid.source}", markup=False, soft_wrap=True)
    for figure in one.figures:
        console.out.print(f"\n{figure.name}: {figure.value:g} {figure.unit}", markup=False)
        console.out.print(f"  {figure.source}", markup=False, soft_wrap=True)


def doctor(found: dict[str, Any]) -> None:
    """What this machine has and lacks, with the line that mends it."""
    machine, cache = found["machine"], found["cache"]
    writable = "writable" if cache["writable"] else "NOT writable"
    _facts(
        [
            ("machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['arch']}, {machine['system']}"),
            ("isa", ", ".join(machine["isa"]) or "nothing special"),
            *[("gpu", name) for name in machine["gpus"]],
            ("device", found["device"] or "no profile fits: give --device by name"),
            ("memory", f"{table.size(found['memory_free_bytes'])} free of {table.size(machine['memory_bytes'])}"),
            ("disk", f"{table.size(found['disk_free_bytes'])} free here"),
            ("cache", f"{cache['folder']}, {writable}, {cache['files']} files"),
        ]
    )
    engines = [(e["engine"], e["version"] or table.NONE, e["cure"] or "ready") for e in found["engines"]]
    console.out.print(console.table("", ("engine", "version", "state"), engines))
    extras = [(e["extra"], "installed" if e["installed"] else f"missing: {e['install']}") for e in found["extras"]]
    console.out.print(console.table("", ("extra", "state"), extras))
    fastest = [(one["bundle"], one["variant"], one["device"], str(one["threads"])) for one in cache["fastest"]]
    if fastest:
        console.out.print(console.table("", ("bundle", "fastest here", "device", "threads"), fastest))


def verified(found: dict[str, Any]) -> None:
    """The state of each variant, and what is damaged."""
    rows = []
    for one in found["variants"]:
        ran = "difference" in one
        figures = (f"{one['difference']:.2g}", f"{one['bound']:.2g}", f"{one['ms']:.0f}") if ran else (table.NONE,) * 3
        rows.append((one["engine"], one["precision"], one["state"], *figures))
    columns = ("engine", "precision", "state", "difference", "at most", "ms")
    console.out.print(console.table("", columns, rows))
    for one in [*found["entries"], *found["variants"]]:
        if one["problem"]:
            console.err.print(f"[yellow]note:[/yellow] {one['problem']}", soft_wrap=True)
    damaged = sum(one["problem"] is not None for one in found["entries"])
    console.out.print(f"{len(found['entries'])} entries, {damaged or 'none'} damaged")


def _or_none(value: float | None, form: str) -> str:
    return table.NONE if value is None else form.format(value)


def _this_command() -> str:
    """How this command can be typed again: by its name where the shell finds it, else by its path."""
    called = Path(sys.argv[0])
    if called.name != "edgelm" or shutil.which("edgelm"):
        return "edgelm"
    return os.path.relpath(called)


def _variants(bundle: Bundle, profile: Profile | None) -> list[dict[str, Any]]:
    """Each variant as the manifest has it, with ``download_bytes`` and, if it was measured, its ``runs[]``."""
    return [
        to_dict(v) | {"download_bytes": v.taken(bundle.downloads)} | _runs_of(profile, v.engine, v.precision)
        for v in bundle.manifest.variants
    ]


def _runs_of(profile: Profile | None, engine: str, precision: str) -> dict[str, Any]:
    if profile is None:
        return {}
    return {"runs": [stats.row(run) for run in profile.runs if (run.engine, run.precision) == (engine, precision)]}


def _files(manifest: Manifest) -> table.Table:
    rows = tuple(
        (v.engine, v.precision, ", ".join(v.files), _lengths(v), f"{v.score.value:.4f}" if v.score else table.NONE)
        for v in manifest.variants
    )
    return table.Table("variants", ("engine", "precision", "file", "tokens", "accuracy"), rows)


def _lengths(variant: Variant) -> str:
    return " ".join(map(str, variant.lengths)) or "any"


def _facts(facts: Iterable[tuple[str, str]]) -> None:
    for name, value in facts:
        console.out.print(f"[bold]{name:<8}[/bold]", end="")
        console.out.print(value, markup=False)


def _print(made: table.Table) -> None:
    console.out.print()
    console.out.print(console.table(made.title, made.columns, made.rows))
