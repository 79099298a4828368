"""Handing the listening sockets of a running router to its successor, so that nobody notices.

::

    successor                              predecessor
      │── connect to var/run/router.takeover ──>│   both check the other's user (SO_PEERCRED)
      │── {"take": 1} ─────────────────────────>│
      │<─ {"pid", "listeners"} + the sockets ───│   SCM_RIGHTS, unix(7)
      │   … prepares; the predecessor serves …  │
      │   accepts; takes the names of the       │
      │   management socket, this one, the state│
      │── {"done": 1} ─────────────────────────>│   accepts no more, drains, exits 0

Both hold the same sockets, and whoever accepts gets the next connection, so none is lost
whichever of the two dies when. A successor that goes before it is done leaves things as they
were: the predecessor never stopped, and takes the names back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from hero.errors import InvalidConfiguration
from hero.router.listening import Listener, accept_on

NAME = "router.takeover"
#: Seconds that a predecessor has to answer. It answers from its reactor, at once.
_PATIENCE = 10.0
_LONGEST = 65536
#: ``struct ucred``: pid, uid, gid.
_UCRED = struct.Struct("=iII")

_log = Logger()


class PassedListener(msgspec.Struct):
    """A listener on the wire; its ``sockets`` are the next of those that come along."""

    spec: str
    secure: bool
    sockets: int
    made: str | None = None


class Offer(msgspec.Struct):
    """What a predecessor answers."""

    pid: int
    listeners: list[PassedListener] = []
    refused: str | None = None


class Predecessor:
    """A router that runs, whose sockets are `listeners` now too."""

    def __init__(self, connection: socket.socket, pid: int, listeners: list[Listener]) -> None:
        self._connection = connection
        self.pid = pid
        self.listeners = listeners

    @classmethod
    def find(cls, run: Path) -> Predecessor | None:
        """The router that runs for the directory *run*, asked for its sockets.

        None where there is none. Raises `InvalidConfiguration` where it does not hand them over.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_PATIENCE)
        try:
            with _short(run) as directory:
                connection.connect(os.path.join(directory, NAME))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        try:
            return cls._ask(connection)
        except (OSError, msgspec.DecodeError) as error:
            connection.close()
            raise InvalidConfiguration(
                f"a router runs, and does not hand its sockets over: {error}",
                hint=f"stop the process that listens on {run / NAME}",
            ) from None

    @classmethod
    def _ask(cls, connection: socket.socket) -> Predecessor:
        if peer_user(connection) != os.geteuid():
            raise OSError("it belongs to another user")
        connection.sendall(b'{"take": 1}\n')
        answer, descriptors = b"", list[int]()
        while not answer.endswith(b"\n"):
            data, passed, _, _ = socket.recv_fds(connection, _LONGEST, 253)
            descriptors += passed
            answer += data
            if not data or len(answer) > _LONGEST:
                raise OSError("its answer broke off")
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        # Each descriptor came with a byte of its own, which says nothing.
        offer = msgspec.json.decode(answer.lstrip(b"\0"), type=Offer)
        if offer.refused is not None:
            raise OSError(offer.refused)
        listeners = []
        for told in offer.listeners:
            taken, sockets = sockets[: told.sockets], sockets[told.sockets :]
            if len(taken) != told.sockets or not taken:
                raise OSError("its answer lacks sockets")
            for sock in taken:
                sock.setblocking(False)
            listeners.append(
                Listener(
                    spec=told.spec,
                    secure=told.secure,
                    sockets=tuple(taken),
                    made=Path(told.made) if told.made else None,
                )
            )
        return cls(connection, offer.pid, listeners)

    def take(self, spec: str) -> Listener | None:
        """Its listener for *spec*, if it has one that was not taken yet."""
        for listener in self.listeners:
            if listener.spec == spec:
                self.listeners.remove(listener)
                return listener
        return None

    def done(self) -> None:
        """It can go: everything is here. Listeners that were not taken are closed."""
        with contextlib.suppress(OSError):
            self._connection.sendall(b'{"done": 1}\n')
        self._connection.close()
        for listener in self.listeners:
            for sock in listener.sockets:
                sock.close()


class TakeoverPort:
    """Waits in the directory *run* for a successor.

    *listeners* are what it is given; *gone* is called when it is done, *failed* when it went
    before that.
    """

    def __init__(
        self,
        reactor: Any,
        run: Path,
        listeners: Iterable[Listener],
        *,
        gone: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._run = run
        self.listeners = listeners
        self.gone = gone
        self.failed = failed
        self.successor: _Successor | None = None
        self._port: IListeningPort | None = None
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Wait, in the place of whoever waited before."""
        self.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        temporary = f".takeover.{secrets.token_hex(4)}"
        with _short(self._run) as directory:
            path = os.path.join(directory, temporary)
            sock.bind(path)
            os.chmod(path, 0o600)
            sock.listen(8)
            os.rename(path, os.path.join(directory, NAME))
        factory = Factory.forProtocol(_Successor)
        factory.port = self  # type: ignore[attr-defined]
        factory.noisy = False
        self._socket = sock
        self._port = accept_on(self._reactor, sock, factory)

    def close(self) -> None:
        """Wait no more. The name goes unless another has it."""
        if self._port is not None:
            self._port.stopListening()
            self._port = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def remove(self) -> None:
        """Wait no more, and take the name away."""
        waited = self._socket is not None
        self.close()
        if waited:
            (self._run / NAME).unlink(missing_ok=True)


class _Successor(Protocol):
    """The predecessor's end."""

    factory: Any
    _buffer = b""
    _asked = False
    _done = False

    def connectionMade(self) -> None:
        handle: socket.socket = self.transport.getHandle()  # type: ignore[union-attr]
        if peer_user(handle) != os.geteuid():
            _log.warn("somebody else asked for the router's sockets")
            self.transport.abortConnection()  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > _LONGEST:
            self.transport.abortConnection()  # type: ignore[union-attr]
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            if not self._asked and line == b'{"take": 1}':
                self._hand_over()
            elif self._asked and not self._done and line == b'{"done": 1}':
                self._done = True
                self.factory.port.gone()
            else:
                self.transport.abortConnection()  # type: ignore[union-attr]

    def _hand_over(self) -> None:
        port: TakeoverPort = self.factory.port
        transport: Any = self.transport
        if port.successor is not None:
            refusal = Offer(pid=os.getpid(), refused="another is taking over already")
            transport.write(msgspec.json.encode(refusal) + b"\n")
            transport.loseConnection()
            return
        self._asked = True
        port.successor = self
        offer = Offer(pid=os.getpid())
        for listener in port.listeners:
            made = str(listener.made) if listener.made else None
            offer.listeners.append(
                PassedListener(listener.spec, listener.secure, len(listener.sockets), made)
            )
            for sock in listener.sockets:
                transport.sendFileDescriptor(sock.fileno())
                transport.write(b"\0")
        transport.write(msgspec.json.encode(offer) + b"\n")
        _log.info("a successor asked for the listening sockets")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._asked:
            return
        port: TakeoverPort = self.factory.port
        port.successor = None
        if not self._done:
            _log.warn("the successor went before it was ready; this router goes on")
            port.failed()


def peer_user(sock: socket.socket) -> int:
    """The user id of the process at the other end of a UNIX socket."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[1])


@contextlib.contextmanager
def _short(directory: Path) -> Any:
    """A name of *directory* that leaves room in a socket's address, however long its path is."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o022:
            raise InvalidConfiguration(f"others may write to {directory}", hint="chmod 700 it")
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
