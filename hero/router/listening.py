"""Taking the places that the router is told to listen on, or saying clearly why it cannot."""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import psutil
from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger

from hero.errors import InvalidConfiguration
from hero.paths import MAX_SOCKET_PATH
from hero.router.activation import Inherited, inherited_socket

HTTPS_PORT = 443
#: Where HTTPS goes when 443 may not be bound.
FALLBACK_PORT = 9998
_BACKLOG = 1024

#: ``ssl:PORT`` or ``tcp:PORT``, then ``:interface=ADDRESS``, in which ``\\:`` stands for a colon.
_SPEC = re.compile(r"(ssl|tcp):(\d{1,5})(?::interface=((?:[^:\\]|\\.)+))?")
_UNIX = re.compile(r"unix:(/[^:]+)(?::mode=([0-7]{3,4}))?")

_log = Logger()


@attrs.frozen(kw_only=True)
class Listener:
    """A place to accept connections: ``spec`` as it was asked for, and its listening sockets.

    Several ``sockets`` share one TCP port (SO_REUSEPORT): the kernel spreads connections evenly
    over them, which it does not over processes that share one socket. ``made`` is the file of a
    UNIX socket that was made here, and is to be removed in the end.
    """

    spec: str
    secure: bool
    sockets: tuple[socket.socket, ...]
    made: Path | None = None

    @property
    def url(self) -> str:
        """Where clients find this."""
        sock = self.sockets[0]
        address = sock.getsockname()
        if sock.family == socket.AF_UNIX:
            return f"unix://{self.made or os.fsdecode(address)}"
        scheme = "https" if self.secure else "http"
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return f"{scheme}://{host}:{address[1]}"

    def enough_for(self, count: int) -> Listener:
        """This listener, with a socket for each of *count* processes where it can be had."""
        sockets = [*self.sockets]
        first = sockets[0]
        if first.family == socket.AF_UNIX:
            return self
        try:
            while len(sockets) < count:
                sockets.append(_bound(first.family, first.getsockname()[:2], shared=True))
                sockets[-1].listen(_BACKLOG)
        except OSError as error:
            _log.info(
                "workers share one socket for {url}, and the work less evenly: {reason}",
                url=self.url,
                reason=error.strerror,
            )
        return attrs.evolve(self, sockets=tuple(sockets))

    def share_of(self, number: int, count: int) -> tuple[socket.socket, ...]:
        """The sockets of the process *number* of *count*."""
        return self.sockets[number::count] or self.sockets[:1]

    def remove(self) -> None:
        """Remove the file of a UNIX socket that was made here, unless another took its name."""
        if self.made is None:
            return
        # The file's inode is not the socket's own; who listens there now tells it.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            outcome = probe.connect_ex(os.fspath(self.made))
        if outcome == errno.ECONNREFUSED:
            self.made.unlink(missing_ok=True)


@attrs.define
class Listeners:
    """All the places. ``urls``: TCP first, as others take the first one's port for the router's."""

    items: list[Listener]
    urls: list[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        urls = [listener.url for listener in self.items]
        self.urls = sorted(urls, key=lambda url: url.startswith("unix:"))

    def __iter__(self) -> Iterator[Listener]:
        return iter(self.items)


def open_listener(spec: str, inherited: Sequence[Inherited] = ()) -> Listener:
    """Listen on what *spec* names. Raises `InvalidConfiguration`.

    ``ssl:443`` and ``tcp:9998:interface=127.0.0.1`` as in Twisted's endpoint strings, TLS with
    the node's certificate; ``unix:/path:mode=660`` for HTTP on a UNIX socket; ``systemd:…`` is one
    of the *inherited* sockets, see `hero.router.activation.inherited_socket`.
    """
    if spec.startswith("systemd:"):
        sock, secure = inherited_socket(spec, inherited)
        return Listener(spec=spec, secure=secure, sockets=(sock,))
    matched = _UNIX.fullmatch(spec)
    if matched is not None:
        path = Path(matched[1])
        sock = _bind_unix(path, int(matched[2] or "600", 8))
        return Listener(spec=spec, secure=False, sockets=(sock,), made=path)
    matched = _SPEC.fullmatch(spec)
    if matched is None or int(matched[2]) > 65535:
        raise InvalidConfiguration(
            f"{spec!r} is nothing to listen on",
            hint="write ssl:PORT, ssl:PORT:interface=ADDRESS, tcp:PORT:interface=ADDRESS, "
            "unix:/PATH, unix:/PATH:mode=660, systemd:name=NAME or systemd:index=0",
        )
    secure, port = matched[1] == "ssl", int(matched[2])
    interface = re.sub(r"\\(.)", r"\1", matched[3] or "")
    try:
        return Listener(spec=spec, secure=secure, sockets=(_bind(interface, port),))
    except PermissionError as error:
        if not (secure and port == HTTPS_PORT):
            raise InvalidConfiguration(
                f"port {port} may not be bound: {error.strerror}",
                hint="choose a port from 1024 up, or give the process CAP_NET_BIND_SERVICE",
            ) from None
    _log.info(
        "port {port} may not be bound by this user, so HTTPS is on port {fallback}",
        port=HTTPS_PORT,
        fallback=FALLBACK_PORT,
    )
    return Listener(spec=spec, secure=True, sockets=(_bind(interface, FALLBACK_PORT),))


def accept_on(reactor: Any, sock: socket.socket, factory: IProtocolFactory) -> IListeningPort:
    """Accept connections on *sock*, which listens, until the port is told to stop.

    The socket stays the caller's: it, and what waits in its queue, outlives the port.
    """
    port: Any
    if sock.family == socket.AF_UNIX:
        port = AdoptedUnixPort._fromListeningDescriptor(reactor, sock.fileno(), factory)  # type: ignore[no-untyped-call]
    else:
        port = tcp.Port._fromListeningDescriptor(reactor, sock.fileno(), sock.family, factory)
    port.startListening()
    return port  # type: ignore[no-any-return]


class AdoptedUnixPort(unix.Port):
    """Leaves the file of its socket, and the file's mode, alone."""

    def startListening(self) -> None:
        tcp._reservedFD.reserve()
        assert self.factory is not None
        self.factory.doStart()
        sock: Any = self._preexistingSocket
        self.socket, self._preexistingSocket = sock, None
        self.fileno = sock.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 1
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any) -> None:
        tcp.Port.connectionLost(self, reason)


def _bind(interface: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        # Whether anybody has the port is found out without SO_REUSEPORT, which would share it.
        with _bound(family, (interface, port), shared=False) as probe:
            port = probe.getsockname()[1]
        sock = _bound(family, (interface, port), shared=True)
        sock.listen(_BACKLOG)
    except PermissionError:
        raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InvalidConfiguration(
                f"port {port} is in use by {holder_of(interface, port)}",
                hint="stop it, or listen elsewhere: --listen ssl:PORT",
            ) from None
        where = f"{interface or 'every address'} port {port}"
        raise InvalidConfiguration(f"cannot listen on {where}: {error.strerror}") from None
    return sock


def _bound(family: int, address: tuple[str, int], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_unix(path: Path, mode: int) -> socket.socket:
    """Listen on *path*, over a socket that nobody listens on."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise InvalidConfiguration(f"{path} is longer than the {MAX_SOCKET_PATH} bytes of a socket")
    temporary = path.with_name("." + secrets.token_hex(3))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        if path.exists():
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise InvalidConfiguration(f"{path} exists and is not a socket")
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                if probe.connect_ex(os.fspath(path)) in (0, errno.EAGAIN):
                    raise InvalidConfiguration(f"another process listens on {path}")
        sock.bind(os.fspath(temporary))
        temporary.chmod(mode)
        sock.listen(_BACKLOG)
        temporary.rename(path)
    except OSError as error:
        sock.close()
        raise InvalidConfiguration(f"cannot listen on {path}: {error.strerror}") from None
    except InvalidConfiguration:
        sock.close()
        raise
    return sock


def holder_of(interface: str, port: int) -> str:
    """Who listens on TCP *port* of the address *interface* or of all, for an error message."""
    try:
        connections: list[Any] = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        connections = []
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or connection.laddr.port != port:
            continue
        if not interface or connection.laddr.ip in (interface, "0.0.0.0", "::"):
            if connection.pid is None:
                break
            try:
                name = psutil.Process(connection.pid).name()
            except psutil.Error:
                break
            return f"{name} (process {connection.pid})"
    return "another process, of a user whose processes cannot be looked at"
