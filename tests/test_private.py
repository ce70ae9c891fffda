"""Nothing is reported and nothing is left behind: a run opens no socket and writes into our own cache folder alone."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# From then on, the kernel ends the process that asks for a socket, whichever library asks: seccomp with a filter in
# classic BPF [seccomp(2)], which loads the number of the system call and compares it.
NO_SOCKETS = """
import ctypes, struct
def forbid(number):
    load, equal, give = 0x20, 0x15, 0x06
    program = b"".join(
        struct.pack("HBBI", *line)
        for line in ((load, 0, 0, 0), (equal, 0, 1, number), (give, 0, 0, 0x80000000), (give, 0, 0, 0x7FFF0000))
    )
    kept = ctypes.create_string_buffer(program)
    filters = struct.pack("HxxxxxxP", 4, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.c_char_p(filters), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
"""
# Every file that Python opens for writing, whatever it would do with a network, and what stands in the environment
# when onnxruntime is imported, whose wheels report by default.
AUDIT = """
import os, sys
def hook(event, arguments):
    if event.startswith("socket."):
        raise SystemExit(f"a socket: {event} {arguments}")
    if event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        written.append(os.path.abspath(arguments[0]))
    if event == "import" and arguments[0] == "onnxruntime" and os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        raise SystemExit("onnxruntime was imported with its telemetry on")
written = []
sys.addaudithook(hook)
"""
RUN = """
import edgelm
for engine in ("onnxruntime", "litert", None):
    with edgelm.load(sys.argv[1], engine=engine, threads=1) as model:
        assert model("play music")[0]["label"]
outside = [path for path in written if not path.startswith((sys.argv[2], "/dev/null"))]
assert not outside, outside
"""
SOCKET = {"x86_64": 41, "aarch64": 198}.get(platform.machine())

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or SOCKET is None, reason="system calls are forbidden by Linux's seccomp"
)


def run(program: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    folders = {
        "HOME": home,
        "XDG_CACHE_HOME": home / ".cache",
        "XDG_DATA_HOME": home / ".local",
        "TMPDIR": home / "tmp",
    }
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("EDGELM_CACHE", "ORT_DISABLE_TELEMETRY")
    }
    environment |= {name: str(folder) for name, folder in folders.items()} | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)


@pytest.mark.native("QEMU has no seccomp")
def test_a_run_opens_no_socket_and_writes_into_our_cache_folder_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    own = tmp_path / ".cache" / "edgelm"
    done = run(f"{NO_SOCKETS}{AUDIT}forbid({SOCKET})\n{RUN}", tmp_path, str(tiny_bundle), str(own))
    assert done.returncode == 0, done.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left
    assert all(path.is_relative_to(own) for path in left)


@pytest.mark.native("QEMU has no seccomp")
def test_a_socket_would_have_been_noticed(tmp_path: Path) -> None:
    done = run(f"{NO_SOCKETS}\nimport socket\nforbid({SOCKET})\nsocket.socket()", tmp_path)
    assert done.returncode == -signal.SIGSYS


def test_a_file_elsewhere_would_have_been_noticed(tmp_path: Path) -> None:
    done = run(f"{AUDIT}open('elsewhere', 'w').close()\nassert not written", tmp_path)
    assert done.returncode == 1


def test_an_import_with_telemetry_would_have_been_noticed(tmp_path: Path) -> None:
    done = run(f"{AUDIT}import onnxruntime", tmp_path)
    assert done.stderr == "onnxruntime was imported with its telemetry on\n"
