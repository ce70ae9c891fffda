"""The report: one HTML file that needs nothing else, with what was built, how it was checked and how fast it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from edgelm.bundle import staged
from edgelm.errors import MissingExtra
from edgelm.manifest import Manifest
from edgelm.profile import headline, table, table_layers, table_load
from edgelm.profile.conditions import conditions
from edgelm.profile.doubts import doubts
from edgelm.runs import Profile

try:
    import jinja2

    from edgelm.profile.report import charts, pareto
except ModuleNotFoundError as exc:
    raise MissingExtra("the HTML report", "report") from exc

__all__ = ["render", "write"]


def write(
    path: Path | str,
    manifest: Manifest,
    profile: Profile,
    downloads: Mapping[str, int],
    *,
    title: str,
    expected: table.Table | None = None,
) -> None:
    """Write the report. A file of that name is replaced, at once and as a whole.

    Args:
        path: the ``.html`` file.
        manifest: of the bundle.
        profile: of the bundle; with a run of the engine ``pytorch`` it compares with the original.
        downloads: bytes that each file takes in the bundle, by name.
        title: the page's heading.
        expected: what latency is predicted on the device.

    Raises:
        OSError: the file cannot be written there.
    """
    text = render(manifest, profile, downloads, title=title, expected=expected)
    with staged(Path(path)) as staging:
        staging.write_text(text, encoding="utf-8")


def render(
    manifest: Manifest,
    profile: Profile,
    downloads: Mapping[str, int],
    *,
    title: str,
    expected: table.Table | None = None,
) -> str:
    """The page as HTML; arguments as for ``write``."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files("edgelm.profile.report").joinpath("report.html.jinja").read_text("utf-8"))
    tokens = table.reference_length(profile)
    return template.render(
        title=title,
        manifest=manifest,
        profile=profile,
        downloads=downloads,
        where=table.length_words(tokens),
        conditions=conditions(profile),
        roofline=table_layers.roofline(profile.peak) if profile.peak else "",
        headlines=[table_load.headline(run) for run in profile.runs if run.scenario == "sustained"],
        pieces=[words for run in profile.runs if (words := table_layers.pieces(run))],
        fastest=headline.fastest(manifest, profile),
        cards=headline.cards(manifest, profile, downloads),
        tables=_tables(manifest, profile, downloads),
        expected=expected,
        charts=_charts(manifest, profile, tokens),
        choices=_choices(manifest, profile, downloads, tokens),
        series=charts.series(manifest),
        size=table.size,
        warnings=doubts(profile),
        gigabytes=round(profile.machine.memory_bytes / 2**30, 1),
    )


def _charts(manifest: Manifest, profile: Profile, tokens: int) -> dict[str, str]:
    """The charts by name, of what was measured."""
    kinds = {run.scenario for run in profile.runs}
    found = dict[str, str]()
    if "quick" in kinds:
        found["latency"] = charts.latency(manifest, profile)
    if any(run.lengths for run in profile.runs):
        found["by_length"] = charts.by_length(manifest, profile)
    if kinds - {"sustained"}:
        found["distribution"] = charts.distribution(manifest, profile, tokens)
    if "sustained" in kinds:
        found["over_time"] = charts.over_time(next(run for run in profile.runs if run.scenario == "sustained"))
    if any(run.ops for run in profile.runs):
        found["layers"] = charts.layers(manifest, profile)
    if any(run.fresh for run in profile.runs):
        found["memory"] = charts.memory(manifest, profile, tokens)
    return found


def _choices(manifest: Manifest, profile: Profile, downloads: Mapping[str, int], tokens: int) -> list[dict[str, str]]:
    """The pictures of quality against what it costs, each with its title and its words."""
    quality = pareto.quality_words(manifest)
    costs = [
        ("latency", pareto.by_latency(manifest, profile), "ms", f"median latency, {table.length_words(tokens)}"),
        ("download", pareto.by_download(manifest, downloads), "MB", "download"),
    ]
    return [
        {
            "svg": pareto.chart(points, manifest, f"choice-{name}", f"{across}, {unit}"),
            "title": f"{quality.split(',')[0].capitalize()} against {across.split(',')[0]}",
            "words": pareto.words(points, unit),
        }
        for name, points, unit, across in costs
        if points
    ]


def _tables(manifest: Manifest, profile: Profile, downloads: Mapping[str, int]) -> dict[str, Sequence[table.Table]]:
    """The tables by section; those without rows are left out."""
    kinds = {run.scenario for run in profile.runs}
    found: dict[str, Sequence[table.Table]] = {
        "overview": [table.overview(manifest, profile, downloads)],
        "parity": [table.parity(manifest)],
        "runs": [table.latency(profile)] if kinds <= {"quick"} else [table_load.scenarios(profile)],
        "sustained": [table_load.sustained(run) for run in profile.runs if run.scenario == "sustained"],
        "fresh": [table_load.starts(profile), table_load.memories(profile)],
        "layers": [table_layers.layers(run, profile.peak) for run in profile.runs if run.ops],
        "energy": [table_layers.energy(profile)],
    }
    return {name: [made for made in tables if made.rows] for name, tables in found.items()}
