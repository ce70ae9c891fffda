"""ARM's cost metric. Tests marked "arm" emulate cores; the others say what is refused, and need no lab."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arm import count
from edgelm.errors import DataError, DeviceUnavailable

# Machine code that marks, goes 1000 times round a loop of 5 instructions, and marks again, which takes 3 itself.
KNOWN = """
import ctypes, mmap
mark = [0x72A8A880, 0xD4000001]                   # movk w0, #0x4544, lsl #16; svc #0
words = [0xAA0003E9, 0x528014E8, 0x5288E620, *mark]  # mov x9, x0; mov w8, #167; mov w0, #0x4731
words += [0x4E829420, 0x0E228020, 0x4E22CC20]     # sdot v0.4s, v1.16b, v2.16b; smlal v0.8h, …; fmla v0.4s, …
words += [0xF1000529, 0x54FFFF81]                 # subs x9, x9, #1; b.ne -16
words += [0x5288E600, *mark, 0xD65F03C0]          # mov w0, #0x4730; …; ret
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b"".join(word.to_bytes(4, "little") for word in words))
ctypes.CFUNCTYPE(None, ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))(1000)
"""


@pytest.mark.arm
def test_every_instruction_is_counted_once(lab: Path) -> None:
    _, (executed,) = count.emulate(lab, "cortex-a76", "-c", KNOWN)
    assert executed == {"instructions": 5003, "sdot": 1000, "smmla": 0, "smlal": 1000, "fmla": 1000}


@pytest.mark.arm
@pytest.mark.slow
def test_counts_repeat_and_the_kernels_are_the_cores_own(lab: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    cores = ("cortex-a72", "cortex-a76")
    found = count.instructions(tiny_bundle, cores, tokens=16, lab=lab)
    command = [sys.executable, count.__file__, str(tiny_bundle), "--core", ",".join(cores), "--tokens", "16"]
    command += ["--lab", str(lab), "--json", str(tmp_path / "counts.json")]
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))["counts"] == found
    assert {(row["engine"], row["precision"], row["core"]) for row in found} == {
        (engine, precision, core)
        for engine in ("onnxruntime", "litert")
        for precision in ("fp32", "int8-dynamic")
        for core in cores
    }
    for row in found:
        integer = row["precision"] == "int8-dynamic"
        assert row["agree"] or integer, row
        assert (row["sdot"] > 0) == (integer and row["core"] == "cortex-a76"), row
        assert row["instructions"] > row["sdot"] + row["smlal"] + row["fmla"] > 0, row


def test_a_lab_that_is_not_there_is_told_with_the_cure(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=f"found none: run benchmarks/arm/setup {tmp_path}$"):
        count.instructions(tiny_bundle, lab=tmp_path)


def test_a_core_that_the_lab_lacks_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / ".ready").touch()
    (tmp_path / "cores" / "cortex-a53").mkdir(parents=True)
    with pytest.raises(DeviceUnavailable, match="expected cores among cortex-a53, found cortex-a9"):
        count.instructions(tiny_bundle, ("cortex-a53", "cortex-a9"), lab=tmp_path)


def test_more_tokens_than_the_bundle_takes_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes 1 to 32 tokens, found 33"):
        count.instructions(tiny_bundle, tokens=33, lab=tmp_path)
