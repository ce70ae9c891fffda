from __future__ import annotations

import msgspec
import pytest
import sample

from edgelm.profile import stats, table

MANIFEST, PROFILE, DOWNLOADS = sample.manifest(), sample.profile(), sample.downloads()


def only(**wanted: object) -> list[stats.Summary]:
    runs = [run for run in PROFILE.runs if all(getattr(run, key) == value for key, value in wanted.items())]
    return [stats.summarize(run) for run in runs]


def test_the_overview_has_the_original_first_and_then_each_variant() -> None:
    found = table.overview(MANIFEST, PROFILE, DOWNLOADS)
    assert [row[:2] for row in found.rows] == [
        ("original", "pytorch fp32"),
        ("onnxruntime", "fp32"),
        ("onnxruntime", "int8-dynamic"),
        ("litert", "fp32"),
        ("litert", "int8-dynamic"),
    ]
    assert all(len(row) == len(found.columns) for row in found.rows)


def test_a_row_of_the_overview_holds_the_figures_of_manifest_and_profile() -> None:
    found = table.overview(MANIFEST, PROFILE, DOWNLOADS)
    row = dict(zip(found.columns, found.rows[4], strict=True))
    (own,) = only(engine="litert", precision="int8-dynamic", tokens=32)
    (original,) = only(engine="pytorch", tokens=32)
    assert row == {
        "engine": "litert",
        "precision": "int8-dynamic",
        "agreement": "97.9 %",
        "accuracy": "0.893",
        "p50 ms": f"{own.p50:.2f}",
        "p90 ms": f"{own.p90:.2f}",
        "faster": f"{original.p50 / own.p50:.1f}×",  # noqa: RUF001 - a factor is written so
        "download": "16.0 MB",
        "disk": "17.8 MB",
        "memory": "96.0 MB",
    }


def test_another_length_can_be_asked_for() -> None:
    (own,) = only(engine="litert", precision="int8-dynamic", tokens=128)
    assert table.overview(MANIFEST, PROFILE, DOWNLOADS, tokens=128).rows[4][4] == f"{own.p50:.2f}"


def test_what_was_not_measured_is_a_dash() -> None:
    runs = tuple(run for run in PROFILE.runs if run.engine == "onnxruntime")
    bare = msgspec.structs.replace(MANIFEST, baseline=msgspec.structs.replace(MANIFEST.baseline, score=None))
    found = table.overview(bare, msgspec.structs.replace(PROFILE, runs=runs), DOWNLOADS)
    assert found.rows[0][2:] == (*(table.NONE,) * 5, "268 MB", "268 MB", table.NONE)
    assert (*found.rows[3][4:7], found.rows[3][9]) == (table.NONE,) * 4
    assert found.rows[1][6] == table.NONE
    assert found.rows[1][4] != table.NONE


def test_the_three_sizes_are_those_of_bundle_manifest_and_profile() -> None:
    measured, exported = table.sizes(MANIFEST, PROFILE, DOWNLOADS), table.sizes(MANIFEST, None, DOWNLOADS)
    assert measured.columns == ("engine", "precision", "download", "disk", "memory")
    assert measured.rows[0] == ("original", "pytorch fp32", "268 MB", "268 MB", "716 MB")
    assert measured.rows[4] == ("litert", "int8-dynamic", "16.0 MB", "17.8 MB", "96.0 MB")
    assert [row[:4] for row in exported.rows] == [row[:4] for row in measured.rows]
    assert {row[4] for row in exported.rows} == {table.NONE}


def test_columns_can_be_left_out_and_what_is_left_fits_80() -> None:
    whole = table.overview(MANIFEST, PROFILE, DOWNLOADS)
    found = whole.without(*table.SIZES)
    assert found.columns == tuple(column for column in whole.columns if column not in table.SIZES)
    assert found.rows == tuple(row[:-3] for row in whole.rows)
    widths = [max(map(len, cells)) for cells in zip(found.columns, *found.rows, strict=True)]
    assert sum(widths) + len(widths) <= 80


def test_every_run_has_a_row() -> None:
    found = table.latency(PROFILE)
    assert len(found.rows) == len(PROFILE.runs) == 20
    assert found.rows[0][:3] == ("pytorch", "fp32", "16")
    assert all(len(row) == len(found.columns) for row in found.rows)


def test_parity_has_every_variant() -> None:
    found = table.parity(MANIFEST)
    assert found.rows[0] == ("onnxruntime", "fp32", "872", "100 %", "4.1e-06", "0.00031", "9", "4.1e-06")
    assert len(found.rows) == 4


@pytest.mark.parametrize(("lengths", "expected"), [((16, 32, 64), 32), ((8, 16, 64), 16), ((64,), 64), ((), 0)])
def test_the_reference_length_is_32_or_the_middle(lengths: tuple[int, ...], expected: int) -> None:
    runs = tuple(sample.run("litert", "fp32", length, (1,)) for length in lengths)
    assert table.reference_length(msgspec.structs.replace(PROFILE, runs=runs)) == expected


def test_markdown_has_a_line_a_row_and_keeps_its_columns_apart() -> None:
    made = table.Table("", ("a", "b", "c"), (("x|y", "2", "3"),))
    assert table.markdown(made) == "| a | b | c |\n| --- | --- | ---: |\n| x\\|y | 2 | 3 |\n"


@pytest.mark.parametrize(
    ("share", "expected"), [(1.0, "100 %"), (0.99999, "99.9 %"), (0.9812, "98.1 %"), (0.5, "50 %"), (0.0, "0 %")]
)
def test_only_all_of_them_are_100_per_cent(share: float, expected: str) -> None:
    assert table.percent(share) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (999, "1.0 kB"),
        (17_796_608, "17.8 MB"),
        (267_820_000, "268 MB"),
        (1_234_567, "1.2 MB"),
        (25_276_063_744, "25.3 GB"),
    ],
)
def test_sizes_are_in_decimal_units(count: int, expected: str) -> None:
    assert table.size(count) == expected


@pytest.mark.parametrize(("time", "expected"), [(0.789, "0.79"), (4.2, "4.20"), (42.53, "42.5"), (123.4, "123")])
def test_times_have_about_three_digits(time: float, expected: str) -> None:
    assert table.milliseconds(time) == expected
