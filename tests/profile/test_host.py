"""``edgelm profile --host``, against a real sshd on the loopback address with keys of its own."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

import edgelm
from edgelm.bundle import Bundle
from edgelm.cli import app
from edgelm.errors import DeviceUnavailable, EdgelmError
from edgelm.profile.remote import host as hosts
from edgelm.progress import Advance, silent
from edgelm.runs import Profile

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytest.importorskip("asyncssh", reason="asyncssh is not installed: pip install 'edgelm[ssh]'")
pytestmark = pytest.mark.skipif(SSHD is None, reason="there is no sshd: apt-get install openssh-server")

WHAT: dict[str, Any] = {"tokens": (8,), "seconds": 0.05, "threads": 1}
WHAT |= {"engines": ("onnxruntime",), "precisions": ("fp32",)}
ONE = ["--engine", "onnxruntime", "--precision", "fp32"]
SAID = "this was measured already"


@dataclass(frozen=True)
class Board:
    """An sshd, and the home of the person who connects to it.

    Attributes:
        home: of the person, with ``.ssh``.
        cache: of the board.
        server: the process that listens.
    """

    home: Path
    cache: Path
    server: psutil.Process

    @property
    def left(self) -> list[str]:
        """What is in the board's cache of ours."""
        return sorted(path.name for path in self.cache.glob("edgelm-host/*"))

    @property
    def job(self) -> Path:
        """The folder of the one job."""
        (found,) = self.cache.glob("edgelm-host/job-*")
        return found

    def cut(self) -> None:
        """End every connection, as when a cable is pulled."""
        for child in self.server.children(recursive=True):
            child.kill()

    def kill(self) -> None:
        """End the process that measures, as when memory runs out."""
        for one in psutil.process_iter(["cmdline"]):
            words = one.info["cmdline"] or [""]
            if "edgelm.profile.remote.job" in words and words[-1].startswith(str(self.cache)):
                one.kill()

    def wait(self, name: str) -> Path:
        """A file of the job, when it is there."""
        end = time.monotonic() + 30
        while not (self.job / name).exists():
            assert time.monotonic() < end, (self.job / "log").read_text()
            time.sleep(0.05)
        return self.job / name


def keygen(path: Path) -> str:
    """Make a key; its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text(encoding="utf-8")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def sshd(folder: Path, **environment: str) -> Iterator[Board]:
    """Start an sshd whose sessions have this environment, and a person who is let in as ``board``."""
    home, server = folder / "home", folder / "server"
    for made in (home / ".ssh", server):
        made.mkdir(parents=True, mode=0o700)
    port, host_key = free_port(), keygen(server / "host_key")
    (server / "authorized_keys").write_text(keygen(home / ".ssh" / "id_ed25519"))
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (home / ".ssh" / "config").write_text(
        f"Host board other\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"Host other\n  IdentityFile {home}/.ssh/other\n  IdentitiesOnly yes\n"
    )
    environment = {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "EDGELM_CACHE": str(folder / "cache" / "edgelm"),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    config = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": server / "host_key",
        "AuthorizedKeysFile": server / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "Subsystem": "sftp internal-sftp",
        "SetEnv": " ".join(f'"{name}={value}"' for name, value in environment.items()),
    }
    (server / "config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # of privilege separation: a service would have made it
    command = [str(SSHD), "-D", "-e", "-f", str(server / "config")]
    with (server / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            _answers(port, server / "log")
            yield (board := Board(home, folder / "cache", psutil.Process(process.pid)))
            board.kill()
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.terminate()


def _answers(port: int, log: Path) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        else:
            return


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board whose Python is the one that runs here."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr("edgelm.profile.remote.follow._SLOWEST_S", 0.1)
    monkeypatch.setattr("edgelm.profile.remote.follow._ALIVE_S", 0.2)
    with sshd(tmp_path, PYTHONPATH=str(Path(str(edgelm.__file__)).parent.parent)) as made:
        yield made


def measure(
    bundle: Path, told: list[str], *, host: str = "board", progress: Any = silent, **what: Any
) -> tuple[Profile, str | None]:
    opened = Bundle(bundle)
    return hosts.profile(opened, host, WHAT | what, python=sys.executable, progress=progress, tell=told.append)


def at(task: str, act: Callable[[], None]) -> Any:
    """A progress that acts once, when something of this name first advances."""
    left = [act]

    @contextmanager
    def progress(name: str, total: int) -> Iterator[Advance]:
        def advance(units: int) -> None:
            if name.startswith(task) and units and left:
                left.pop()()

        yield advance

    return progress


def shape(value: Any) -> Any:
    """Keys and types of a JSON object, all the way down; of a list its first entry alone."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value[:1]]
    return isinstance(value, int | float) or value is None or type(value).__name__


def test_a_board_is_measured_as_this_machine_is_and_nothing_is_left_there(
    board: Board, tiny_bundle: Path, tmp_path: Path
) -> None:
    common = ["profile", str(tiny_bundle), "--tokens", "8", "--seconds", "0.05", "--threads", "1", *ONE]
    there, here = tmp_path / "there.json", tmp_path / "here.json"
    remote = ["--host", "board", "--host-python", sys.executable, "--html", str(tmp_path / "there.html")]
    done = CliRunner().invoke(app, [*common, *remote, "--json", str(there)])
    assert done.exit_code == 0, done.stderr
    for words in ("copy to board", "measure latency", "measure memory", "board: what was copied is deleted"):
        assert words in done.stderr
    assert board.left == []
    assert CliRunner().invoke(app, [*common, "--json", str(here)]).exit_code == 0
    found, local = (json.loads(path.read_text()) for path in (there, here))
    drop = ("celsius", "mhz", "governors", "notes")  # a machine tells these at one time and not at another
    assert [shape({k: v for k, v in one.items() if k not in drop}) for one in found["runs"]] == [
        shape({k: v for k, v in one.items() if k not in drop}) for one in local["runs"]
    ]
    assert (list(found), found["schema"], found["edgelm"]) == (list(local), local["schema"], local["edgelm"])
    assert found["machine"] == local["machine"]
    assert {(run["engine"], run["tokens"], run["threads"]) for run in found["runs"]} == {
        (run["engine"], run["tokens"], run["threads"]) for run in local["runs"]
    }
    assert (tmp_path / "there.html").stat().st_size > 10_000


def test_texts_and_a_failure_there_come_home_in_one_line(board: Board, tiny_bundle: Path) -> None:
    with pytest.raises(
        EdgelmError, match=r"board: no length to measure: the bundle takes 1 to 32 tokens, asked for 99"
    ):
        measure(tiny_bundle, [], tokens=(99,))
    assert board.left == []


def test_a_host_that_is_not_known_is_refused_with_the_cure(board: Board, tiny_bundle: Path) -> None:
    known = board.home / ".ssh" / "known_hosts"
    before = known.read_text()
    for content in ("", None):
        known.write_text(content) if content is not None else known.unlink()
        with pytest.raises(
            DeviceUnavailable, match=r"board: its host key is not known here.*connect once with 'ssh board'"
        ):
            measure(tiny_bundle, [])
    known.write_text(before.replace("127.0.0.1", "elsewhere"))
    with (board.home / ".ssh" / "config").open("a") as config:
        config.write("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
    with pytest.raises(DeviceUnavailable, match="its host key is not known here"):
        measure(tiny_bundle, [])
    assert "elsewhere" in known.read_text()
    assert board.left == []


def test_a_host_whose_key_is_another_is_refused(board: Board, tiny_bundle: Path) -> None:
    known = board.home / ".ssh" / "known_hosts"
    name = known.read_text().split()[0]
    known.write_text(f"{name} {keygen(board.home / 'another')}")
    with pytest.raises(DeviceUnavailable, match="board: its host key is not the one that is known"):
        measure(tiny_bundle, [])


def test_a_key_that_is_not_let_in_is_refused_with_the_cure(board: Board, tiny_bundle: Path) -> None:
    keygen(board.home / ".ssh" / "other")
    with pytest.raises(DeviceUnavailable, match=r"other: none of your SSH keys is let in.*ssh-copy-id other"):
        measure(tiny_bundle, [], host="other")


def test_a_host_that_does_not_answer_is_told(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(f"Host *\n  Port {free_port()}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        DeviceUnavailable, match=r"127.0.0.1: cannot be reached: Connect call failed.*that 'ssh 127.0.0.1'"
    ):
        measure(tiny_bundle, [], host="127.0.0.1")
    (tmp_path / ".ssh" / "config").write_text("Port soon\n")
    with pytest.raises(DeviceUnavailable, match=r"cannot be reached: .*config line 1: Invalid Port"):
        measure(tiny_bundle, [], host="127.0.0.1")


def test_a_measurement_goes_on_without_the_connection_and_its_result_is_picked_up(
    board: Board, tiny_bundle: Path
) -> None:
    told = list[str]()
    with pytest.raises(
        DeviceUnavailable, match="board: the connection was lost: it goes on measuring there, and the same"
    ):
        measure(tiny_bundle, told, progress=at("measure latency", board.cut))
    board.wait("outcome.json")
    raw = (board.job / "profile.json").read_bytes()
    found, _ = measure(tiny_bundle, told)
    assert json.loads(raw)["runs"][0]["samples_ns"] == list(found.runs[0].samples_ns)
    assert [SAID in line for line in told] == [True, False]
    assert board.left == []


def test_a_measurement_that_still_runs_is_followed_and_another_is_refused_meanwhile(
    board: Board, tiny_bundle: Path
) -> None:
    told = list[str]()
    longer: dict[str, Any] = {"seconds": 600.0}  # of which only the beginning is waited for
    with pytest.raises(DeviceUnavailable, match="lost"):
        measure(tiny_bundle, told, progress=at("measure latency", board.cut), **longer)
    with pytest.raises(DeviceUnavailable, match="board: another profile is being measured there"):
        measure(tiny_bundle, told)
    with pytest.raises(EdgelmError, match="board: the measurement was killed"):
        measure(tiny_bundle, told, progress=at("measure latency", board.kill), **longer)
    assert told[0] == "board: it is still measuring; what it does is followed"
    assert board.left == []


def test_a_copy_that_was_cut_goes_on_where_it_was(
    board: Board, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgelm.profile.remote.link._CHUNK", 4096)
    size = tiny_bundle.stat().st_size
    with pytest.raises(DeviceUnavailable, match="lost: the copy is not complete, and the same command goes on with it"):
        measure(tiny_bundle, [], progress=at("copy", board.cut))
    have = (board.job / "bundle.part").stat().st_size
    assert 0 < have < size
    assert (board.job / "bundle.part").read_bytes() == tiny_bundle.read_bytes()[:have]
    shares = list[int]()

    @contextmanager
    def progress(name: str, total: int) -> Iterator[Advance]:
        yield shares.append if name.startswith("copy") else lambda units: None

    measure(tiny_bundle, [], progress=progress)
    assert shares[0] == 100 * have // size
    assert sum(shares) == 100
    assert board.left == []


def test_who_interrupts_is_told_what_the_same_command_will_do(board: Board, tiny_bundle: Path) -> None:
    told = list[str]()
    with pytest.raises(KeyboardInterrupt):
        measure(tiny_bundle, told, progress=at("copy", lambda: signal.raise_signal(signal.SIGINT)))
    assert told == ["board: interrupted: the copy is not complete, and the same command goes on with it"]
    assert (board.job / "bundle.part").exists()
    assert board.job.stat().st_mode & 0o777 == 0o700


def test_a_copy_that_was_damaged_is_made_again(board: Board, tiny_bundle: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="lost"):
        measure(tiny_bundle, [], progress=at("copy", board.cut))
    (board.job / "bundle.part").write_bytes(bytes(1000))
    assert measure(tiny_bundle, [])[0].runs
    assert board.left == []


def test_a_measurement_that_was_killed_says_so(board: Board, tiny_bundle: Path) -> None:
    with pytest.raises(EdgelmError, match="board: the measurement was killed"):
        measure(tiny_bundle, [], progress=at("measure latency", board.kill), seconds=600.0)
    assert board.left == []


def test_a_measurement_that_is_gone_without_a_word_is_begun_again(board: Board, tiny_bundle: Path) -> None:
    def kill() -> None:
        pid = int((board.job / "lock").read_text())
        for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            one.kill()

    told = list[str]()
    with pytest.raises(DeviceUnavailable, match="board: the measurement ended there without a result"):
        measure(tiny_bundle, told, progress=at("measure latency", kill), seconds=4.0)
    copied = (board.job / "bundle.edgelm").stat().st_mtime_ns
    times = list[int]()
    measure(
        tiny_bundle,
        told,
        seconds=4.0,
        progress=at("measure latency", lambda: times.append((board.job / "bundle.edgelm").stat().st_mtime_ns)),
    )
    assert times == [copied]
    assert told == ["board: what was copied is deleted"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [("exit 127", "found no ./python"), ("echo 3 6", "found ./python is 3.6"), ("echo hello", "found no ./python")],
)
def test_a_python_that_is_too_old_or_not_there_is_told(
    board: Board, tiny_bundle: Path, tmp_path: Path, answer: str, words: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o755)
    words = words.replace(".", str(tmp_path), 1)
    with pytest.raises(DeviceUnavailable, match=f"expected Python 3.11 or newer, {words}"):
        hosts.profile(Bundle(tiny_bundle), "board", WHAT, python=str(python), progress=silent, tell=print)


def test_what_a_board_lacks_is_told_before_anything_is_copied(
    board: Board, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "version", lambda name: "99")
    monkeypatch.setattr(hosts, "_ENV_BYTES", 10**18)
    with pytest.raises(DeviceUnavailable, match=r"board: expected 1000000000000 MB free for .*, found \d+ MB"):
        measure(tiny_bundle, [])
    assert board.left == []


@pytest.mark.slow
def test_a_board_without_edgelm_gets_an_environment_that_is_kept(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What edgelm needs lies on a path of the board's Python already, so that pip has edgelm itself to install."""
    needs = tmp_path / "needs"
    needs.mkdir()
    for path in Path(psutil.__file__).parent.parent.iterdir():
        if "edgelm" not in path.name and path.suffix not in (".pth", ".py"):
            (needs / path.name).symlink_to(path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    told = list[str]()
    with sshd(tmp_path, PYTHONPATH=str(needs), PIP_NO_DEPS="1", PIP_NO_INDEX="1") as board:
        common: dict[str, Any] = {"python": str(base), "progress": silent, "tell": told.append}
        found, _ = hosts.profile(Bundle(tiny_bundle), "board", WHAT, **common)
        assert found.edgelm == edgelm.__version__
        assert told[0] == f"board: has no edgelm {edgelm.__version__}: an environment is made for it"
        (env,) = board.left
        assert told[1].endswith(f"{env} is kept for the next call")
        made = (board.cache / "edgelm-host" / env / "made").stat().st_mtime_ns
        (board.cache / "edgelm-host" / "env-of-another-version").mkdir()
        with pytest.raises(EdgelmError, match="no length to measure"):  # which the environment that was kept says
            hosts.profile(Bundle(tiny_bundle), "board", WHAT | {"tokens": (99,)}, **common)
        assert (board.cache / "edgelm-host" / env / "made").stat().st_mtime_ns == made
        assert board.left == [env]
        assert len(told) == 3


def test_options_of_the_host_need_the_host(tiny_bundle: Path) -> None:
    done = CliRunner().invoke(app, ["profile", str(tiny_bundle), "--host-python", "python3"])
    assert done.exit_code == 2
    assert "--host-python is of --host USER@BOARD" in done.stderr


def test_without_the_library_the_line_that_installs_it_is_told(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("host", "link"):
        monkeypatch.delitem(sys.modules, f"edgelm.profile.remote.{name}", raising=False)
    monkeypatch.delattr("edgelm.profile.remote.host", raising=False)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    done = CliRunner().invoke(app, ["profile", str(tiny_bundle), "--host", "board"])
    assert done.exit_code == 2
    assert done.stderr.strip() == "edgelm: --host needs packages that are not installed: pip install 'edgelm[ssh]'"
