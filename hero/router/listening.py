"""Taking the ports that the router is told to listen on, or saying clearly why it cannot."""

from __future__ import annotations

import errno
import re
import socket
from typing import Any

import attrs
import psutil
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString
from twisted.logger import Logger

from hero.errors import InvalidConfiguration

HTTPS_PORT = 443
#: Where HTTPS goes when 443 may not be bound.
FALLBACK_PORT = 9998
_BACKLOG = 1024

#: ``ssl:PORT`` or ``tcp:PORT``, then ``:interface=ADDRESS``, in which ``\\:`` stands for a colon.
_SPEC = re.compile(r"(ssl|tcp):(\d{1,5})(?::interface=((?:[^:\\]|\\.)+))?")

_log = Logger()


@attrs.frozen(kw_only=True)
class Listener:
    """A place to accept connections. ``sock`` is bound; a ``description`` is another's socket."""

    secure: bool
    sock: socket.socket | None = None
    description: str | None = None

    def endpoint(self, reactor: Any) -> Any:
        """The endpoint to listen on. The socket then belongs to the reactor.

        Raises `InvalidConfiguration` where systemd passed no such socket.
        """
        if self.sock is None:
            assert self.description is not None
            try:
                return serverFromString(reactor, self.description)
            except (ValueError, LookupError):
                raise InvalidConfiguration(
                    f"{self.description!r} names no socket that systemd passed"
                ) from None
        family = self.sock.family
        return AdoptedStreamServerEndpoint(reactor, self.sock.detach(), family)


def open_listener(spec: str) -> Listener:
    """Bind what *spec* names. Raises `InvalidConfiguration`.

    ``ssl:443`` and ``tcp:9998:interface=127.0.0.1`` as in Twisted's endpoint strings, TLS with
    the node's certificate; ``systemd:…`` is a socket that systemd passes, and speaks TLS.
    """
    if spec.startswith("systemd:"):
        return Listener(secure=True, description=spec)
    matched = _SPEC.fullmatch(spec)
    if matched is None or int(matched[2]) > 65535:
        raise InvalidConfiguration(
            f"{spec!r} is nothing to listen on",
            hint="write ssl:PORT, ssl:PORT:interface=ADDRESS, tcp:PORT:interface=ADDRESS, "
            "or systemd:domain=INET:index=0",
        )
    secure, port = matched[1] == "ssl", int(matched[2])
    interface = re.sub(r"\\(.)", r"\1", matched[3] or "")
    try:
        return Listener(secure=secure, sock=_bind(interface, port))
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
    return Listener(secure=True, sock=_bind(interface, FALLBACK_PORT))


def _bind(interface: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((interface, port))
        sock.listen(_BACKLOG)
    except PermissionError:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise InvalidConfiguration(
                f"port {port} is in use by {holder_of(interface, port)}",
                hint="stop it, or listen elsewhere: --listen ssl:PORT",
            ) from None
        where = f"{interface or 'every address'} port {port}"
        raise InvalidConfiguration(f"cannot listen on {where}: {error.strerror}") from None
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
