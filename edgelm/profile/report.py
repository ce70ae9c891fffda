"""The report: one HTML file that needs nothing else, with what was built, how it was checked and how fast it is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from edgelm.bundle import staged
from edgelm.errors import MissingExtra
from edgelm.manifest import Manifest
from edgelm.profile import headline, table
from edgelm.profile.doubts import doubts
from edgelm.runs import Profile

try:
    import jinja2

    from edgelm.profile import charts
except ModuleNotFoundError as exc:
    raise MissingExtra("the HTML report", "report") from exc

__all__ = ["render", "write"]


def write(path: Path | str, manifest: Manifest, profile: Profile, downloads: Mapping[str, int], *, title: str) -> None:
    """Write the report. A file of that name is replaced, at once and as a whole.

    Args:
        path: the ``.html`` file.
        manifest: of the bundle.
        profile: of the bundle; with a run of the engine ``pytorch`` it compares with the original.
        downloads: bytes that each file takes in the bundle, by name.
        title: the page's heading.

    Raises:
        OSError: the file cannot be written there.
    """
    text = render(manifest, profile, downloads, title=title)
    with staged(Path(path)) as staging:
        staging.write_text(text, encoding="utf-8")


def render(manifest: Manifest, profile: Profile, downloads: Mapping[str, int], *, title: str) -> str:
    """The page as HTML; arguments as for ``write``."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files("edgelm.profile").joinpath("report.html.jinja").read_text("utf-8"))
    tokens = table.reference_length(profile)
    return template.render(
        title=title,
        manifest=manifest,
        profile=profile,
        downloads=downloads,
        tokens=tokens,
        fastest=headline.fastest(manifest, profile),
        cards=headline.cards(manifest, profile, downloads),
        tables={
            "overview": table.overview(manifest, profile, downloads),
            "parity": table.parity(manifest),
            "latency": table.latency(profile),
        },
        charts=_charts(manifest, profile, tokens),
        series=charts.series(manifest),
        size=table.size,
        warnings=doubts(profile),
        gigabytes=round(profile.machine.memory_bytes / 2**30, 1),
    )


def _charts(manifest: Manifest, profile: Profile, tokens: int) -> dict[str, str]:
    """The charts by name; none when nothing was measured."""
    if not profile.runs:
        return {}
    return {
        "latency": charts.latency(manifest, profile),
        "distribution": charts.distribution(manifest, profile, tokens),
    }
