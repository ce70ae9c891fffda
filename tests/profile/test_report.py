from __future__ import annotations

import re
import stat
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
import sample

from edgelm.manifest import Manifest
from edgelm.profile import report, stats, table
from edgelm.runs import Conditions, Energy, Fresh, Op, Peak, Profile

MANIFEST, PROFILE, DOWNLOADS = sample.manifest(), sample.profile(), sample.downloads()
VOID = {"meta", "br", "link", "img", "hr"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and gathers ids, references and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)

    def note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name.split(":")[-1] in ("href", "src", "srcset", "action", "data"):
                self.references.append(value or "")
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def page(manifest: Manifest = MANIFEST, profile: Profile = PROFILE, title: str = "assistant") -> str:
    return report.render(manifest, profile, DOWNLOADS, title=title)


def test_every_element_is_closed_in_its_order_and_ids_are_unique() -> None:
    found = Reader(page())
    assert found.open == []
    assert len(set(found.ids)) == len(found.ids) > 0


def test_the_page_needs_nothing_but_itself() -> None:
    text = page()
    found = Reader(text)
    assert found.references  # the charts refer to their own markers and clips
    assert {reference[:1] for reference in found.references} == {"#"}
    assert {reference[1:] for reference in found.references} <= set(found.ids)
    assert not found.tags & {"script", "link", "img", "iframe", "object", "embed"}
    assert "http" not in text
    assert "@import" not in text
    assert len(text.encode()) < 2_000_000


def test_every_cell_of_every_table_is_on_the_page() -> None:
    cells = Reader(page()).cells
    for made in (table.overview(MANIFEST, PROFILE, DOWNLOADS), table.parity(MANIFEST), table.latency(PROFILE)):
        wanted = [*made.columns, *(cell for row in made.rows for cell in row)]
        size = len(wanted)
        assert any(cells[at : at + size] == wanted for at in range(len(cells)))


def test_the_page_says_what_was_built_where_and_what_to_beware_of() -> None:
    text = page()
    for wanted in (
        "17,412,098",
        "66,955,010",
        "x86_64-avx512-vnni",
        "models/sst2-teacher",
        "Intel(R) Xeon(R) Processor",
    ):
        assert wanted in text
    for variant in MANIFEST.variants:
        assert variant.sha256 in text
        assert f"{variant.bytes:,} bytes, {DOWNLOADS[variant.file]:,} in the bundle" in text
    for heads, ffn in zip(MANIFEST.model.heads, MANIFEST.model.ffn, strict=True):
        assert f"</span>{heads}</td>" in text
        assert f"</span>{ffn}</td>" in text
    assert "its load average was 1.4" in text
    calm = msgspec.structs.replace(PROFILE, runs=PROFILE.runs[:1])
    assert "Before you trust the times" not in page(profile=sample.loaded(calm, 0.0))


def deep() -> Profile:
    """As measured with everything that can be asked for."""
    ops = tuple(
        Op(layer=layer, name=layer, kind="MatMul", us=10.0, macs=10**6, bytes=10**4, int8=False)
        for layer in ("embedding", "attention 0", "ffn 0", "head")
    )
    fresh = Fresh(
        peak_bytes=90_000_000,
        cold_ns=800_000_000,
        load_ns=200_000_000,
        first_ns=9_000_000,
        steady_ns=2_000_000,
        resident_bytes=80_000_000,
        rest_bytes=70_000_000,
        proportional_bytes=60_000_000,
    )
    joules = Energy(joules=0.01, watts=5.0, idle_watts=2.0, source="a sensor of the board")
    before, after = Conditions(mhz=2400, celsius=45, governors=("performance",)), Conditions(mhz=1800, celsius=81)
    runs = tuple(
        msgspec.structs.replace(
            run, fresh=fresh, energy=joules, ops=ops if run.engine != "pytorch" else (), before=before, after=after
        )
        for run in PROFILE.runs
    )
    return msgspec.structs.replace(PROFILE, runs=runs, peak=Peak(fp32_macs=1e11, int8_macs=4e11, bytes=1e10, threads=2))


def test_everything_that_was_asked_for_is_shown_and_still_well_made() -> None:
    text = page(profile=deep())
    found = Reader(text)
    assert found.open == []
    assert len(set(found.ids)) == len(found.ids)
    for wanted in (
        "Where the time goes",
        "attention 0",
        "100 GMAC/s in fp32 and 400 in int8",
        "800",
        "60.0 MB",
        "a sensor of the board",
        "2400 MHz before, 1800 MHz after",
        "45 °C before, 81 °C after",
        "litert int8-dynamic: its graph was timed in 4 pieces, which took 0.04 ms together; a request takes 0.",
    ):
        assert wanted in text, wanted
    drawn = text[text.index("<body>") :]
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", drawn)


def test_what_is_expected_on_the_device_is_shown_as_what_it_is() -> None:
    columns = ("engine", "precision", "tokens", "p50 ms", "from", "to")
    made = table.Table("predicted on board: not measured", columns, (("litert", "fp32", "16", "7.77", "6.66", "9.99"),))
    text = report.render(MANIFEST, PROFILE, DOWNLOADS, title="assistant", expected=made)
    assert Reader(text).open == []
    assert "Predicted on board: not measured." in text
    assert {"7.77", "6.66", "9.99"} <= set(Reader(text).cells)
    none = report.render(MANIFEST, PROFILE, DOWNLOADS, title="assistant", expected=table.Table("", columns, ()))
    assert none == page()


def test_what_the_harness_takes_is_told_where_it_was_measured() -> None:
    assert "Harness" not in page()
    runs = tuple(msgspec.structs.replace(run, harness_ns=1200 + run.tokens) for run in PROFILE.runs)
    text = page(profile=msgspec.structs.replace(PROFILE, runs=runs))
    shortest = min(stats.percentile_ms(run.samples_ns, 50) for run in runs if run.tokens == 16)
    share = f"{100 * 1216 / (shortest * 1e6):.2g} %"
    assert f"1.33 µs of each latency at most, {share} of the shortest median" in text  # at 128 and at 16 tokens


def test_a_scenario_and_a_sustained_run_can_be_shown() -> None:
    run = PROFILE.runs[-1]
    count = len(run.samples_ns)
    drawn = msgspec.structs.replace(
        run,
        scenario="server",
        tokens=0,
        lengths=tuple(16 + index % 32 for index in range(count)),
        at_ns=tuple(range(0, count * 10**7, 10**7)),
        verdict="INVALID Reduce the rate.",
    )
    text = page(profile=msgspec.structs.replace(PROFILE, runs=(drawn,)))
    assert Reader(text).open == []
    assert "lengths as drawn" in text
    assert "INVALID Reduce the rate." in text
    steady = msgspec.structs.replace(
        run, scenario="sustained", tokens=32, at_ns=tuple(range(0, count * 10**9, 10**9)), during=()
    )
    text = page(profile=msgspec.structs.replace(PROFILE, runs=(steady,)))
    assert Reader(text).open == []
    assert "marked as throttled" in text


def test_charts_take_their_colours_from_the_page_in_light_and_in_dark() -> None:
    text = page()
    drawn = text[text.index("<body>") :]
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", drawn)
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    light, dark = (set(re.findall(r"(--[\w-]+):", part)) for part in re.findall(r":root \{(.*?)\}", text, re.DOTALL))
    assert used <= light
    assert light == dark


def test_text_from_the_outside_cannot_become_markup() -> None:
    text = page(title="<script>alert(1)</script>")
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_profile_of_one_variant_at_one_length_can_be_shown() -> None:
    runs = tuple(run for run in PROFILE.runs if run.engine == "litert" and run.tokens == 64)[:1]
    text = page(profile=msgspec.structs.replace(PROFILE, runs=runs))
    assert Reader(text).open == []
    assert "Latency at 64 tokens" in text


def test_a_profile_without_any_run_can_be_shown() -> None:
    text = page(profile=msgspec.structs.replace(PROFILE, runs=()))
    assert Reader(text).open == []
    assert "17.8 MB" in text
    assert "Latency at" not in text


def test_the_same_figures_give_the_same_page() -> None:
    assert page() == page()


def test_the_file_is_replaced_as_a_whole_and_others_may_read_it(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    report.write(target, MANIFEST, PROFILE, DOWNLOADS, title="assistant")
    assert target.read_text("utf-8") == page()
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(self: Path, text: str, encoding: str) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail)
        with pytest.raises(OSError, match="disk full"):
            report.write(target, MANIFEST, PROFILE, DOWNLOADS, title="assistant")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_the_extra_the_line_that_installs_it_is_given(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from edgelm.errors import MissingExtra\n"
        "try:\n    import edgelm.profile.report\n"
        "except MissingExtra as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'edgelm[report]'" in done.stdout
