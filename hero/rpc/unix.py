"""Listening on a UNIX socket that appears at once, belongs to one process, and goes with it."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorUNIX
from twisted.protocols.policies import WrappingFactory

from hero.errors import InvalidConfiguration, SocketPathTooLong
from hero.paths import MAX_SOCKET_PATH

_BACKLOG = 1024


def listen_unix(
    reactor: IReactorUNIX, path: Path, factory: IProtocolFactory, *, replace: bool = False
) -> Deferred[IListeningPort]:
    """Listen on *path*, mode 0600, in a directory made with mode 0700 where there is none.

    The socket takes its name when it accepts connections, in one step, over a stale one. Raises
    `InvalidConfiguration` where another process answers on *path*, unless that is to be *replace*d,
    or *path* is no socket, and `SocketPathTooLong`.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise SocketPathTooLong(
            f"{path} is {len(os.fsencode(path))} bytes long; {MAX_SOCKET_PATH} is the most that a "
            "socket address holds",
            hint="set HERO_SOCKET_DIR to a shorter path",
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _directory_lock(path.parent):
        _refuse_if_taken(path, replace)
        port = _NamedPort(path, factory, reactor)
        port.startListening()
    return succeed(port)


class UnixService(Service):
    """Listens on *path* while it runs; with *replace* also where another process does."""

    def __init__(
        self,
        reactor: IReactorUNIX,
        path: Path,
        factory: IProtocolFactory,
        *,
        replace: bool = False,
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._factory = WrappingFactory(factory)
        self._replace = replace
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """Listen. Raises as `listen_unix` does."""
        self._listen(self._replace)
        super().startService()  # type: ignore[no-untyped-call]

    def retake(self) -> None:
        """Listen anew, as another process took the name and is gone. Connections stay."""
        port = self._port
        self._listen(True)
        if port is not None:
            port.stopListening()

    def _listen(self, replace: bool) -> None:
        listening = listen_unix(self._reactor, self._path, self._factory, replace=replace)
        listening.addCallback(self._listening)

    def stopService(self) -> Deferred[None]:
        """Take the socket away, then close the connections."""
        super().stopService()  # type: ignore[no-untyped-call]
        port, self._port = self._port, None
        stopped = maybeDeferred(port.stopListening) if port is not None else succeed(None)
        return stopped.addCallback(lambda _: self._disconnect())

    def _disconnect(self) -> None:
        for connection in list(self._factory.protocols):
            connection.transport.loseConnection()

    def _listening(self, port: IListeningPort) -> None:
        self._port = port


class _NamedPort(unix.Port):
    """A port that is bound under a temporary name and renamed when it listens."""

    def __init__(self, path: Path, factory: IProtocolFactory, reactor: Any) -> None:
        self._path = path
        # No longer than the shortest name of ours, so that it fits whenever the real one does;
        # the router never serves a name that starts with a dot.
        self._temporary = path.with_name("." + secrets.token_hex(3))
        self._inode = 0
        super().__init__(
            os.fsencode(self._temporary), factory, _BACKLOG, mode=0o600, reactor=reactor
        )

    def startListening(self) -> None:
        super().startListening()  # type: ignore[no-untyped-call]
        self._inode = self._temporary.stat().st_ino
        os.rename(self._temporary, self._path)

    def connectionLost(self, reason: Any) -> None:
        try:
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            pass
        tcp.Port.connectionLost(self, reason)

    def __repr__(self) -> str:
        return f"<{type(self.factory).__name__} on {self._path}>"


@contextmanager
def _directory_lock(directory: Path) -> Iterator[None]:
    """Keep other processes of ours from looking at, or taking, a name at the same time."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _refuse_if_taken(path: Path, replace: bool) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidConfiguration(f"{path} exists and is not a socket", hint="move it away")
    if not replace and _answers(path):
        raise InvalidConfiguration(
            f"another process listens on {path}", hint="hero status names it; hero down stops it"
        )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        outcome = probe.connect_ex(os.fspath(path))
    return outcome in (0, errno.EAGAIN, errno.EINPROGRESS)
