"""The commands that measure: words for people, as in ``edgelm/cli.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from edgelm import console, show_profile
from edgelm.errors import DataError, Regression
from edgelm.options import (
    BundlePath,
    EngineName,
    Html,
    Json,
    PrecisionName,
    Threads,
    check_outputs,
    emit,
    needs,
    numbers,
)

__all__ = ["compare", "profile"]


def profile(
    bundle: BundlePath,
    device: Annotated[str, Option("--device", help="auto (the CPU), cpu, cuda, cuda:1, …")] = "auto",
    engine: EngineName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    tokens: Annotated[str, Option("--tokens", metavar="N,N", help="Lengths to measure.")] = "16,32,64,128",
    seconds: Annotated[
        float | None, Option("--seconds", min=0.0, help="At least, for each length (5) or variant in a scenario (60).")
    ] = None,
    scenario: Annotated[str | None, Option("--scenario", help="single-stream, offline or server, by MLPerf.")] = None,
    data: Annotated[Path | None, Option("--data", metavar="FILE", help="Texts of a scenario; JSON lines.")] = None,
    histogram: Annotated[
        str | None, Option("--histogram", metavar="N:W,N:W", help="Lengths of a scenario with their weights.")
    ] = None,
    rate: Annotated[float | None, Option("--rate", min=0.0, help="Requests a second of server.")] = None,
    sustained: Annotated[str | None, Option("--sustained", metavar="10m", help="The fastest, without a pause.")] = None,
    per_layer: Annotated[bool, Option("--per-layer", help="Where a request spends its time, with a roofline.")] = False,
    energy: Annotated[bool, Option("--energy", help="Joules of a request, where the machine tells them.")] = False,
    html: Html = None,
    save: Annotated[Path | None, Option("--save", metavar="FILE", help="Keep the raw samples, to compare.")] = None,
    force: Annotated[bool, Option("--force", help="Write over the file of --save.")] = False,
    host: Annotated[str | None, Option("--host", metavar="USER@BOARD", help="Measure there, over SSH.")] = None,
    host_python: Annotated[str | None, Option("--host-python", metavar="PATH", help="Python of the board.")] = None,
    json_out: Json = None,
) -> None:
    """Latency and memory of each variant, on this machine or another."""
    from edgelm.bundle import Bundle
    from edgelm.profile import files, session

    check_outputs(html, save, json_out)
    if save:
        files.check_new(save, force=force)
    if html:
        with needs("the HTML report", "report"):
            from edgelm.profile import report
    if host_python and not host:
        raise DataError("--host-python is of --host USER@BOARD: give that too")
    what: dict[str, Any] = {
        "scenario": scenario,
        "sustained": sustained,
        "tokens": tuple(numbers(tokens, "--tokens")),
        "seconds": seconds,
        "histogram": histogram,
        "rate": rate,
        "texts": _texts(data),
        "per_layer": per_layer,
        "energy": energy,
    }
    asked = session.asked(**what)
    narrowed: dict[str, Any] = {
        "engines": (engine,) if engine else None,
        "precisions": (precision,) if precision else None,
        "threads": threads,
        "device": device,
    }
    opened = Bundle(bundle)
    if host:
        with needs("--host", "ssh"):
            from edgelm.profile.remote import host as board
        there = board.profile(opened, host, what | narrowed, python=host_python, progress=console.progress, tell=_tell)
        measured, no_energy = there
    else:
        measured = session.measure(opened, asked, **narrowed, progress=console.progress)
        no_energy = asked.no_energy
    if save:
        files.save(save, measured, force=force)
    if html:
        report.write(html, opened.manifest, measured, opened.downloads, title=bundle.stem)
    if json_out != "-":
        show_profile.profiled(measured, no_energy)
    emit(json_out, "profile", show_profile.profile_json(measured, no_energy))


def compare(
    before: Annotated[Path, Argument(metavar="BEFORE", help="A profile that --save wrote, or a built bundle.")],
    after: Annotated[Path, Argument(metavar="AFTER", help="Another.")],
    fail_if: Annotated[
        list[str] | None,
        Option("--fail-if", metavar="LIMIT", help="Exit with 1: p50>+5%, or p90, p99, mean, peak_rss."),
    ] = None,
    across_machines: Annotated[bool, Option("--across-machines", help="Allow two different machines.")] = False,
    json_out: Json = None,
) -> None:
    """What changed between two profiles, and how sure that is."""
    from edgelm.profile import compare as comparing
    from edgelm.profile import files

    check_outputs(json_out)
    limits = [comparing.limit(text) for text in fail_if or ()]
    found = comparing.compare(files.load(before), files.load(after), across_machines=across_machines)
    failed = comparing.broken(found.changes, limits)
    if json_out != "-":
        show_profile.compared(found)
    emit(json_out, "compare", show_profile.compare_json(found, failed))
    if failed:
        raise Regression(comparing.told(failed))


def _texts(data: Path | None) -> tuple[str, ...] | None:
    """The texts of a file, if there is one."""
    if data is None:
        return None
    from edgelm.data import read_texts

    return read_texts(data)


def _tell(line: str) -> None:
    console.err.print(line, markup=False, soft_wrap=True)
