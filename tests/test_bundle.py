from __future__ import annotations

import hashlib
import struct
import zipfile
from pathlib import Path

import msgspec
import pytest
import sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgelm import bundle
from edgelm.bundle import Bundle, Region
from edgelm.errors import BundleDamaged, BundleError
from edgelm.manifest import External, Manifest
from edgelm.schema import encode


def contents(seed: bytes = b"weights") -> tuple[Manifest, dict[str, bytes]]:
    """A manifest whose hashes are those of the files."""
    made = sample.manifest()
    files = {variant.file: seed * 700 + variant.file.encode() for variant in made.variants}
    variants = tuple(
        msgspec.structs.replace(v, bytes=len(files[v.file]), sha256=hashlib.sha256(files[v.file]).hexdigest())
        for v in made.variants
    )
    extra = {"tokenizer.json": b'{"model": {}}' * 50, "golden.json": b"[]"}
    return msgspec.structs.replace(made, variants=variants), {**extra, **files}


@pytest.fixture(params=[False, True], ids=["stored", "deflated"])
def written(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "a.edgelm"
    bundle.write(path, *contents(), deflate=request.param)
    return path


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.binary(max_size=60), deflate=st.booleans())
def test_what_was_written_is_read(tmp_path: Path, seed: bytes, deflate: bool) -> None:
    manifest, files = contents(seed)
    path = tmp_path / "a.edgelm"
    bundle.write(path, manifest, files, deflate=deflate)
    opened = Bundle(path)
    assert opened.manifest == manifest
    assert {name: opened.read(name) for name in files} == files
    assert opened.tokenizer == files["tokenizer.json"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("written", [False], indirect=True, ids=["stored"])
def test_any_zip_tool_opens_it_and_variants_begin_on_a_page(written: Path) -> None:
    raw = written.read_bytes()
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "manifest.json"
        for variant in Bundle(written).manifest.variants:
            entry = archive.getinfo(variant.file)
            assert entry.compress_type == zipfile.ZIP_STORED
            start = raw.index(b"weights" * 700 + variant.file.encode())
            assert start % 4096 == 0


@pytest.mark.parametrize("limit", [1000, 3600, 5000, 100_000])
def test_variants_begin_on_a_page_where_sizes_need_64_bits(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    (manifest, files), path = contents(), tmp_path / "a.edgelm"
    bundle.write(path, manifest, files)
    raw = path.read_bytes()
    marks = [raw.count(struct.pack("<HH", 1, 16) + struct.pack("<QQ", len(one), len(one))) for one in files.values()]
    assert any(marks) is (limit < 100_000)
    monkeypatch.undo()  # who reads it knows nothing of that
    opened = Bundle(path)
    for variant in manifest.variants:
        region = opened.region(variant.file)
        assert region is not None
        assert region.offset % 4096 == 0
        assert lying(region) == opened.read(variant.file) == files[variant.file]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_an_entry_given_in_parts_is_the_same(tmp_path: Path) -> None:
    manifest, files = contents()
    parts: dict[str, bytes | bundle.Parts] = {name: [memoryview(one)[:9], b"", one[9:]] for name, one in files.items()}
    for deflate in (False, True):
        bundle.write(tmp_path / "a", manifest, files, deflate=deflate)
        bundle.write(tmp_path / "b", manifest, parts, deflate=deflate)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def beside(*, deflate: bool, path: Path) -> tuple[Path, dict[str, bytes]]:
    """A bundle whose first variant has its weights beside it, and what it holds."""
    manifest, files = contents()
    first, *others = manifest.variants
    files["model.data"] = b"many weights" * 900
    external = External(file="model.data", sha256=hashlib.sha256(files["model.data"]).hexdigest())
    variants = (msgspec.structs.replace(first, external=external), *others)
    bundle.write(path, msgspec.structs.replace(manifest, variants=variants), files, deflate=deflate)
    return path, files


@pytest.mark.parametrize("deflate", [False, True])
def test_external_weights_belong_to_their_variant(deflate: bool, tmp_path: Path) -> None:
    path, files = beside(deflate=deflate, path=tmp_path / "a.edgelm")
    opened = Bundle(path)
    first, second, *_ = opened.manifest.variants
    assert first.files == (first.file, "model.data")
    assert second.files == (second.file,)
    assert first.taken(opened.downloads) == opened.downloads[first.file] + opened.downloads["model.data"]
    region = opened.region("model.data")
    if deflate:
        assert region is None
    else:
        assert region is not None
        assert region.offset % 4096 == 0
        assert lying(region) == files["model.data"]


@pytest.mark.parametrize("deflate", [False, True])
def test_damage_to_external_weights_is_found(deflate: bool, tmp_path: Path) -> None:
    path, files = beside(deflate=deflate, path=tmp_path / "a.edgelm")
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    Bundle(path).check("model.data")
    for content in (b"other weights", files["model.data"][:-1] + b"?", None):
        with zipfile.ZipFile(path, "w") as archive:
            for name, one in {**entries, "model.data": content}.items():
                if one is not None:
                    archive.writestr(name, one)
        if content is None:
            with pytest.raises(BundleError, match=r"its manifest lists model\.data, which it does not hold"):
                Bundle(path)
            continue
        opened = Bundle(path)
        with pytest.raises(BundleDamaged, match=r"model\.data is not what the manifest says"):
            opened.read("model.data")
        with pytest.raises(BundleDamaged, match=r"model\.data is not what the manifest says"):
            opened.check("model.data")


def test_variants_that_differ_in_their_weights_alone_are_told_apart() -> None:
    first = contents()[0].variants[0]
    one, other = (msgspec.structs.replace(first, external=External(file="a", sha256=name)) for name in ("1", "2"))
    assert len({first.digest, one.digest, other.digest}) == 3


@pytest.mark.parametrize("written", [True], indirect=True, ids=["deflated"])
def test_a_deflated_bundle_is_smaller_and_says_what_each_variant_takes_of_it(written: Path, tmp_path: Path) -> None:
    bundle.write(tmp_path / "stored", *contents())
    stored, deflated = Bundle(tmp_path / "stored"), Bundle(written)
    with zipfile.ZipFile(written) as archive:
        assert archive.testzip() is None
        for variant in deflated.manifest.variants:
            entry = archive.getinfo(variant.file)
            assert entry.compress_type == zipfile.ZIP_DEFLATED
            assert deflated.downloads[variant.file] == entry.compress_size < variant.bytes
            assert stored.downloads[variant.file] == variant.bytes
    assert sum(deflated.downloads.values()) < written.stat().st_size < stored.path.stat().st_size


@pytest.mark.parametrize("deflate", [False, True])
def test_the_same_content_gives_the_same_bytes(tmp_path: Path, deflate: bool) -> None:
    for name in ("a", "b"):
        bundle.write(tmp_path / name, *contents(), deflate=deflate)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0, exclude_max=True))
def test_a_bundle_cut_anywhere_is_refused_in_one_line(written: Path, share: float) -> None:
    whole = written.read_bytes()
    cut = written.with_suffix(".cut")
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BundleError) as caught:
        Bundle(cut)
    assert "\n" not in str(caught.value)
    assert str(cut) in str(caught.value)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.0, 1.0, exclude_max=True), value=st.integers(1, 255))
def test_a_changed_byte_is_never_read_as_another_content(written: Path, share: float, value: int) -> None:
    manifest, files = contents()
    raw = bytearray(written.read_bytes())
    raw[int(share * len(raw))] ^= value
    damaged = written.with_suffix(".damaged")
    damaged.write_bytes(raw)
    try:
        opened = Bundle(damaged)
        found = {variant.file: opened.read(variant.file) for variant in opened.manifest.variants}
        for variant in opened.manifest.variants:
            if region := opened.region(variant.file):
                opened.check(variant.file, region)
                assert lying(region) == files[variant.file]
    except BundleError:
        return
    assert opened.manifest == manifest
    assert found == {variant.file: files[variant.file] for variant in manifest.variants}


def rewritten(path: Path, changes: dict[str, bytes | None]) -> Path:
    """A bundle with entries replaced, added, or (None) left out, without the care that `write` takes."""
    manifest, files = contents()
    entries: dict[str, bytes | None] = {"manifest.json": encode(manifest), **files, **changes}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"manifest.json": None}, "holds no manifest.json"),
        ({"manifest.json": b"{}"}, "schema"),
        ({"manifest.json": b"\xff"}, "not readable"),
        ({"manifest.json": encode(contents()[0]).replace(b"manifest/1", b"manifest/9")}, "edgelm.manifest/9"),
        ({"tokenizer.json": None}, "lists tokenizer.json"),
        ({"../../evil": b"x"}, "points out of it"),
    ],
)
def test_a_bundle_that_is_not_right_is_refused(changes: dict[str, bytes | None], words: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=words):
        Bundle(rewritten(tmp_path / "a.edgelm", changes))


def test_a_variant_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    file = contents()[0].variants[0].file
    opened = Bundle(rewritten(tmp_path / "a.edgelm", {file: b"another model"}))
    with pytest.raises(BundleError, match="sha256"):
        opened.read(file)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100])
def test_another_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.edgelm"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="not a bundle"):
        Bundle(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        Bundle(tmp_path / "none")
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle(tmp_path)


def lying(region: Region) -> bytes:
    return region.path.read_bytes()[region.offset : region.offset + region.size]


def test_what_is_stored_lies_in_the_file_as_it_is_and_what_is_deflated_nowhere(written: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(written)
    opened, files = Bundle(tmp_path / "link"), contents()[1]
    for variant in opened.manifest.variants:
        region = opened.region(variant.file)
        if opened.downloads[variant.file] < variant.bytes:
            assert region is None
        else:
            assert region is not None
            assert (region.path, lying(region)) == (written.resolve(), files[variant.file])
            opened.check(variant.file, region)
    with pytest.raises(BundleError, match=r"holds no model\.none"):
        opened.region("model.none")


def test_a_region_that_was_altered_is_refused(tmp_path: Path) -> None:
    file = contents()[0].variants[0].file
    opened = Bundle(rewritten(tmp_path / "a.edgelm", {file: b"another model"}))
    region = opened.region(file)
    assert region is not None
    with pytest.raises(BundleDamaged, match="sha256"):
        opened.check(file, region)


def test_an_entry_can_be_added_once(written: Path) -> None:
    before = Bundle(written).manifest
    bundle.add(written, "profile.json", b"{}")
    assert Bundle(written).read("profile.json") == b"{}"
    assert Bundle(written).manifest == before
    with pytest.raises(BundleError, match="already holds"):
        bundle.add(written, "profile.json", b"other")
    assert Bundle(written).read("profile.json") == b"{}"


def fail_in(path: Path, error: type[BaseException]) -> None:
    with bundle.staged(path) as staging:
        staging.write_bytes(b"half")
        raise error


def fail_in_folder(folder: Path, error: type[BaseException]) -> None:
    with bundle.staged_dir(folder) as staging:
        (staging / "file").write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(written: Path, error: type[BaseException]) -> None:
    before = written.read_bytes()
    with pytest.raises(error):
        fail_in(written, error)
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_half_way_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    folder = tmp_path / "folder"
    with bundle.staged_dir(folder) as staging:
        (staging / "file").write_text("old")
    with pytest.raises(error):
        fail_in_folder(folder, error)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (folder / "file").read_text() == "old"
    with bundle.staged_dir(folder) as staging:
        (staging / "other").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["other"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
