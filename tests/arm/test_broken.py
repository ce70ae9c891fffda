"""A machine that computes wrong 8-bit products is found out: QEMU 7.2's own processor, with its matrix extension."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arm.count import emulate

# What each variant does, what is taken when nothing is asked for, and what the whole bundle is said to be.
ASK = """
import json, os, sys
from pathlib import Path
import edgelm, edgelm.verify
from edgelm.errors import SelfTestFailed
os.environ["EDGELM_CACHE"] = sys.argv[2]
refused = {}
for engine in ("onnxruntime", "litert"):
    for precision in ("fp32", "int8-dynamic"):
        try:
            edgelm.load(sys.argv[1], engine=engine, precision=precision, threads=1).close()
        except SelfTestFailed as exc:
            refused[f"{engine} {precision}"] = str(exc)
with edgelm.load(sys.argv[1], threads=1) as model:
    taken = model.explain()
print(json.dumps([refused, taken, edgelm.verify.verify(Path(sys.argv[1]), threads=1)]))
"""
INT8 = {"onnxruntime int8-dynamic", "litert int8-dynamic"}


def asked(lab: Path, core: str, bundle: Path, cache: Path) -> Any:
    return json.loads(emulate(lab, core, "-c", ASK, str(bundle), str(cache))[0])


@pytest.mark.arm
@pytest.mark.slow
def test_the_self_test_refuses_a_machine_that_multiplies_wrongly(lab: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    refused, taken, verified = asked(lab, "max", tiny_bundle, tmp_path)
    assert set(refused) == INT8
    assert all("computes something else on this machine" in words for words in refused.values())
    assert (taken["precision"], set(taken["left_out"])) == ("fp32", INT8)
    states = {f"{one['engine']} {one['precision']}": one["state"] for one in verified["variants"]}
    assert {name for name, state in states.items() if state == "failed"} == INT8
    assert not verified["ok"]


@pytest.mark.arm
@pytest.mark.slow
def test_and_refuses_nothing_on_a_core_that_does_not(lab: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    refused, taken, verified = asked(lab, "cortex-a76", tiny_bundle, tmp_path)
    assert (refused, taken["left_out"], verified["ok"]) == ({}, {}, True)
