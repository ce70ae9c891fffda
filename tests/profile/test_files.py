from __future__ import annotations

from pathlib import Path

import pytest
import sample

from edgelm import bundle
from edgelm.errors import DataError
from edgelm.profile import files
from edgelm.schema import encode


def test_a_profile_is_kept_and_not_written_over_by_mistake(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.save(path, sample.profile())
    assert files.load(path) == sample.profile()
    with pytest.raises(DataError, match=r"a\.json: there is a file of this name.*--force"):
        files.save(path, sample.loaded(sample.profile(), 9.0))
    assert files.load(path) == sample.profile()
    files.save(path, sample.loaded(sample.profile(), 9.0), force=True)
    assert files.load(path).load_start == 9.0


def test_a_bundle_is_read_for_what_its_build_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.edgelm"
    manifest = sample.manifest()
    contents = {"tokenizer.json": b"{}", **{variant.file: b"" for variant in manifest.variants}}
    bundle.write(path, manifest, contents)
    with pytest.raises(DataError, match=r"a\.edgelm: the bundle has no profile"):
        files.load(path)
    bundle.add(path, bundle.PROFILE, encode(sample.profile()))
    assert files.load(path) == sample.profile()


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: no profile can be read \(No such file"):
        files.load(tmp_path / "none.json")
