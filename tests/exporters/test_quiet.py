from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest

from edgelm.exporters.quiet import mute, quiet


def test_loggers_are_quiet_inside_and_as_before_after(caplog: pytest.LogCaptureFixture) -> None:
    noisy = logging.getLogger("vendor.noisy")
    noisy.setLevel(logging.INFO)

    def fail() -> None:
        with quiet("vendor.noisy"):
            noisy.warning("chatter")
            noisy.error("trouble")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    noisy.info("later")
    assert caplog.messages == ["trouble", "later"]


def test_one_warning_is_dropped_and_no_other() -> None:
    with quiet():
        warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use …", FutureWarning, stacklevel=1)
        with pytest.raises(FutureWarning, match="something else"):
            warnings.warn("something else", FutureWarning, stacklevel=1)


def test_standard_error_is_muted_for_python_and_for_what_it_calls(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with mute():
            print("python", file=sys.stderr)
            os.write(2, b"c++\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    os.write(2, b"after\n")
    print("after that", file=sys.stderr)
    assert capfd.readouterr().err.splitlines() == ["after", "after that"]


def test_a_process_without_standard_error_is_muted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(descriptor: int) -> int:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "dup", closed)
    with mute():
        print("python", file=sys.stderr)
