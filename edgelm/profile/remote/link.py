"""A connection to a board: commands and files over SSH, by asyncssh, with what goes wrong told in one line.

It connects as ``ssh`` does: host keys by ``known_hosts``, one's own by the agent and ``~/.ssh``, jump hosts and all
else by ``~/.ssh/config``. It never asks for anything: neither to trust a host nor for a password.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import asyncssh

from edgelm.errors import DeviceUnavailable

__all__ = ["Link", "connect"]

LOST = (
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    ConnectionError,
)
"""What a connection that is gone is told by."""

_CHUNK = 1 << 18
_CONNECT_S, _LOGIN_S = 15, 30
_ALIVE_S, _ALIVE_COUNT = 10, 3  # a board that does not answer for so long is gone


@dataclass
class Link:
    """A connection.

    Attributes:
        host: as it was asked for.
        after: what the same command will do if the connection is lost now, as the end of a sentence.
    """

    host: str
    connection: asyncssh.SSHClientConnection
    sftp: asyncssh.SFTPClient
    after: str = field(default="nothing was begun there; run the same command again", init=False)

    async def run(self, *command: str, script: str = "") -> tuple[int, str]:
        """Run a command there; what it is given on its standard input, its exit status and its output.

        Of a command that fails, the output is that of standard error.
        """
        done = await self.connection.run(shlex.join(command), input=script, request_pty=False)
        if done.exit_status is None or done.exit_status < 0:
            raise asyncssh.ConnectionLost("no exit status")
        return done.exit_status, str(done.stderr if done.exit_status else done.stdout).strip()

    async def folder(self, path: str) -> None:
        """Make a folder there, with those above it, that nobody else can look into."""
        await self.sftp.makedirs(path, asyncssh.SFTPAttrs(permissions=0o700), exist_ok=True)

    async def write(
        self, path: str, content: bytes, *, offset: int = 0, progress: Callable[[int], None] = lambda size: None
    ) -> None:
        """Write a file there from an offset to its end, which is that of the content."""
        async with self.sftp.open(path, "r+b" if offset else "wb") as file:
            for begin in range(offset, len(content), _CHUNK):
                chunk = content[begin : begin + _CHUNK]
                await file.write(chunk, begin)
                progress(len(chunk))

    async def read(self, path: str, offset: int = 0) -> bytes | None:
        """The content of a file there from an offset on; None if there is no such file."""
        try:
            async with self.sftp.open(path, "rb") as file:
                return cast(bytes, await file.read(-1, offset))
        except asyncssh.SFTPNoSuchFile:
            return None


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[Link]:
    """Connect to a board for as long as the context lasts.

    Args:
        address: ``user@host``, or ``host`` as ``~/.ssh/config`` has it.

    Raises:
        DeviceUnavailable: it cannot be reached, is not the one that is known, or lets nobody in; or the connection was
            lost meanwhile, with what a second call will do.
    """
    async with await _connected(address) as connection:
        try:
            async with connection.start_sftp_client() as sftp:
                link = Link(address, connection, sftp)
                try:
                    yield link
                except LOST as exc:
                    raise DeviceUnavailable(f"{address}: the connection was lost: {link.after}") from exc
        except asyncssh.SFTPError as exc:
            raise DeviceUnavailable(
                f"{address}: a file could not be read or written there: {exc.reason}; is the disk full, or the folder "
                "somebody else's?"
            ) from exc
        except asyncssh.ChannelOpenError as exc:
            raise DeviceUnavailable(f"{address}: its SSH server lets nobody copy files (SFTP): {exc.reason}") from exc


async def _connected(address: str) -> asyncssh.SSHClientConnection:
    user, _, host = address.rpartition("@")
    configs = [path for path in (Path.home() / ".ssh/config", Path("/etc/ssh/ssh_config")) if path.is_file()]
    known: list[str] = []
    try:
        options = asyncssh.SSHClientConnectionOptions(
            host=host,
            username=user or (),
            config=[str(path) for path in configs],
            password_auth=False,
            kbdint_auth=False,
            connect_timeout=_CONNECT_S,
            login_timeout=_LOGIN_S,
            keepalive_interval=_ALIVE_S,
            keepalive_count_max=_ALIVE_COUNT,
        )
        known = _known_hosts(options)
        return await asyncssh.connect(host, options=options, known_hosts=known or b"")
    except asyncssh.HostKeyNotVerifiable as exc:
        name = options.host_key_alias or options.host
        port = None if options.port == asyncssh.DEFAULT_PORT else options.port
        if known and asyncssh.match_known_hosts(known, name, "", port)[0]:
            raise DeviceUnavailable(
                f"{address}: its host key is not the one that is known, as when another machine answers in its place; "
                f"if it was set up anew, forget the old key with ssh-keygen -R, and connect once with: ssh {address}"
            ) from exc
        raise DeviceUnavailable(
            f"{address}: its host key is not known here, and is never accepted unseen: connect once with "
            f"'ssh {address}', compare the fingerprint, and run the same command again"
        ) from exc
    except asyncssh.PermissionDenied as exc:
        raise DeviceUnavailable(
            f"{address}: none of your SSH keys is let in, and passwords are not used: ssh-copy-id {address}, or name "
            "the key in ~/.ssh/config; a key with a passphrase goes into the agent, by ssh-add"
        ) from exc
    except (OSError, asyncssh.Error, ValueError) as exc:
        why = getattr(exc, "strerror", None) or getattr(exc, "reason", None) or str(exc) or "no answer in time"
        why += f": {exc.filename}" if isinstance(exc, OSError) and exc.filename else ""
        raise DeviceUnavailable(f"{address}: cannot be reached: {why}; expected that 'ssh {address}' works") from exc


def _known_hosts(options: asyncssh.SSHClientConnectionOptions) -> list[str]:
    """The files that host keys are looked up in.

    asyncssh itself takes ``UserKnownHostsFile none`` as leave to check nothing, and stumbles over a file that is
    missing.
    """
    own, shared = ["~/.ssh/known_hosts"], ["/etc/ssh/ssh_known_hosts"]
    named = [
        *cast(list[str], options.config.get("UserKnownHostsFile", own)),
        *cast(list[str], options.config.get("GlobalKnownHostsFile", shared)),
    ]
    return [str(path) for path in (Path(one).expanduser() for one in named) if path.is_file()]
