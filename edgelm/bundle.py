"""The one file: a ZIP that any tool can open, with a manifest, the variants, the tokenizer, the recipe and proof.

Variants are stored and begin on a page boundary, so that they can be mapped where they lie; or they are deflated, which
makes the file smaller. The ZIP itself says which. Times in it are fixed: the same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from edgelm.errors import BundleDamaged, BundleError
from edgelm.manifest import Manifest
from edgelm.runs import Profile
from edgelm.runs import read as read_profile
from edgelm.schema import decode, encode

__all__ = ["Bundle", "Parts", "Region", "add", "staged", "staged_dir", "write"]

MANIFEST = "manifest.json"
PROFILE = "profile.json"
TOKENIZER = "tokenizer.json"
_PAGE = 4096
_PART = 1 << 20  # bytes that are read at once
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEVEL = 9  # of deflate: written once, and no slower to read than any other
_LOCAL = "<4s5H3L2H"  # ends with the lengths of the name and of the extra field [PKWARE APPNOTE 4.3.7]
_LOCAL_HEADER = struct.calcsize(_LOCAL)
_ZIP64 = 20  # bytes of the extra field with the sizes of what is large, which zipfile writes behind ours [4.5.3]
_PADDING_ID = 0xD935  # the extra field that Android's zipalign pads with


Parts = list[bytes | memoryview]
"""Content in parts, so that what is large need not be copied to be written."""


@dataclass(frozen=True)
class Region:
    """Where bytes lie in a file, so that they can be mapped."""

    path: Path
    offset: int
    size: int


class Bundle:
    """A bundle opened for reading.

    Attributes:
        path: the file.
        manifest: what it holds.
        downloads: bytes that each entry takes in the file, compressed if it is, by name.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a bundle and check that all that its manifest lists is there.

        Raises:
            BundleError: it is missing, not a bundle, cut short, or of a version that this edgelm does not read.
        """
        self.path = Path(path)
        with self._open() as archive:
            self.downloads = {entry.filename: entry.compress_size for entry in archive.infolist()}
            raw = _entry(archive, MANIFEST, self.path)
        for name in self.downloads:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise BundleError(f"{self.path}: holds an entry '{name}' that points out of it; do not use this file")
        self.manifest = decode(raw, Manifest, source=f"{self.path}, {MANIFEST}", error=BundleError)
        lost = {TOKENIZER, *_files(self.manifest)} - set(self.downloads)
        if lost:
            raise BundleError(f"{self.path}: its manifest lists {', '.join(sorted(lost))}, which it does not hold")

    def read(self, name: str) -> bytes:
        """The content of an entry; of a variant, only if its hash is that of the manifest.

        Raises:
            BundleError: there is no such entry.
            BundleDamaged: it was altered.
        """
        with self._open() as archive:
            content = _entry(archive, name, self.path)
        self._compare(name, hashlib.sha256(content).hexdigest())
        return content

    def region(self, name: str) -> Region | None:
        """Where the content of an entry lies, if it is stored as it is. Whether it is what was written, says ``check``.

        Raises:
            BundleError: there is no such entry.
        """
        with self._open() as archive, _found(name, self.path):
            entry = archive.getinfo(name)
            if entry.compress_type != zipfile.ZIP_STORED:
                return None
            with self.path.open("rb") as file:
                file.seek(entry.header_offset)
                *_, named, extra = struct.unpack(_LOCAL, file.read(_LOCAL_HEADER))
        return Region(self.path.resolve(), entry.header_offset + _LOCAL_HEADER + named + extra, entry.file_size)

    def check(self, name: str, region: Region | None = None) -> None:
        """Hash an entry in parts, so that it is never in memory as a whole.

        Args:
            name: of the entry.
            region: where its content lies, which alone is looked at then, and not what the ZIP says of it.

        Raises:
            BundleError: there is no such entry.
            BundleDamaged: it was altered.
        """
        if region is not None:
            with region.path.open("rb") as file:
                file.seek(region.offset)
                self._compare(name, _hashed(file, region.size))
            return
        with self._open() as archive, _found(name, self.path), archive.open(name) as content:
            found = _hashed(content, archive.getinfo(name).file_size)
        self._compare(name, found)

    def _compare(self, name: str, found: str) -> None:
        known = {v.file: v.sha256 for v in self.manifest.variants}
        known |= {v.external.file: v.external.sha256 for v in self.manifest.variants if v.external}
        expected = known.get(name)
        if expected is not None and found != expected:
            raise BundleDamaged(f"{self.path}: {name} is not what the manifest says (sha256); get the file again")

    @property
    def tokenizer(self) -> bytes:
        """Content of ``tokenizer.json``."""
        return self.read(TOKENIZER)

    @property
    def profile(self) -> Profile | None:
        """What the build measured, on its own machine; None in a bundle that was only exported."""
        if PROFILE not in self.downloads:
            return None
        return read_profile(self.read(PROFILE), source=f"{self.path}, {PROFILE}", error=BundleError)

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except FileNotFoundError as exc:
            raise BundleError(f"{self.path}: no such file; expected a .edgelm bundle") from exc
        except OSError as exc:
            raise BundleError(f"{self.path}: cannot be read: {exc.strerror or exc}") from exc
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as exc:
            raise BundleError(f"{self.path}: not a bundle, or cut short ({exc}); copy or build it again") from exc


def write(path: Path, manifest: Manifest, files: Mapping[str, bytes | Parts], *, deflate: bool = False) -> None:
    """Write a bundle at once and as a whole.

    Args:
        path: the file; one of that name is replaced.
        manifest: written first.
        files: entries by name; one may be given in parts.
        deflate: compress the variants too, and not only what is text.
    """
    variants = _files(manifest)
    with staged(path) as staging, zipfile.ZipFile(staging, "w") as archive:
        for name, content in {MANIFEST: encode(manifest), **files}.items():
            _put(archive, name, content, stored=name in variants and not deflate)


def add(path: Path, name: str, content: bytes) -> None:
    """Add one entry to a bundle, which is replaced at once and as a whole.

    Raises:
        BundleError: the bundle has an entry of that name.
    """
    with staged(path) as staging:
        shutil.copyfile(path, staging)
        with zipfile.ZipFile(staging, "a") as archive:
            if name in archive.namelist():
                raise BundleError(f"{path}: already holds {name}")
            _put(archive, name, content, stored=False)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, renamed to ``path`` when the context ends without an exception.

    Args:
        path: the final name; what is there stays until the rename.

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    staging = Path(name)
    try:
        yield staging
        with staging.open("rb+") as file:
            os.fsync(file.fileno())
        staging.chmod(0o644)  # mkstemp lets nobody else read it
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def staged_dir(path: Path) -> Iterator[Path]:
    """The same for a folder; one of that name is replaced, and put back if the rename fails.

    Raises:
        OSError: the parent is not there or cannot be written.
    """
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    old = staging.with_name(f"{staging.name}.old")
    try:
        yield staging
        staging.chmod(0o755)
        if path.exists():
            path.rename(old)
        try:
            staging.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _entry(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    with _found(name, path):
        return archive.read(name)


@contextmanager
def _found(name: str, path: Path) -> Iterator[None]:
    """What reading an entry may end in, in one line."""
    try:
        yield
    except KeyError as exc:
        raise BundleError(f"{path}: holds no {name}; expected a bundle made by edgelm") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as exc:
        raise BundleDamaged(f"{path}: {name} is damaged ({exc}); copy or build it again") from exc


def _files(manifest: Manifest) -> set[str]:
    """Names of all that belongs to variants."""
    return {name for variant in manifest.variants for name in variant.files}


def _hashed(file: IO[bytes], size: int) -> str:
    """SHA-256 of what comes next in a file, in hexadecimal."""
    seen = hashlib.sha256()
    while part := file.read(min(size, _PART)):
        seen.update(part)
        size -= len(part)
    return seen.hexdigest()


def _put(archive: zipfile.ZipFile, name: str, content: bytes | Parts, *, stored: bool) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    parts = [content] if isinstance(content, bytes) else content
    if not stored:
        archive.writestr(entry, b"".join(parts), compresslevel=_LEVEL)
        return
    entry.file_size = sum(map(len, parts))
    large = 2 * entry.file_size > zipfile.ZIP64_LIMIT  # twice: zipfile too decides with some room, but not with so much
    if archive.fp is not None:
        start = archive.fp.tell() + _LOCAL_HEADER + len(name.encode()) + 4  # 4: the extra field's own header
        room = -(start + large * _ZIP64) % _PAGE
        entry.extra = struct.pack("<HH", _PADDING_ID, room) + bytes(room)
    with archive.open(entry, "w", force_zip64=large) as file:
        for part in parts:
            file.write(part)
