"""Accepting on sockets that listen already, with transports that send at once.

Plain twin: `hero.router.listening.accept_on`, with `hero.router.tls_listener.over_tls` around the
factory where TLS is wanted.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from hero.identity.tls import ServerTls
from hero.router.fast.eager import EagerServer, EagerUNIXServer
from hero.router.fast.tls import TlsServer
from hero.router.listening import AdoptedUnixPort


def listen_on(
    reactor: Any, sock: socket.socket, factory: IProtocolFactory, *, tls: ServerTls | None
) -> IListeningPort:
    """Accept connections on *sock*, which listens, for *factory*; over TLS if *tls* is given.

    The socket stays the caller's: it, and what waits in its queue, outlives the port.
    """
    sock.setblocking(False)
    port: Any
    if sock.family == socket.AF_UNIX:
        if tls is not None:
            raise ValueError("TLS is spoken on TCP only")
        port = EagerUNIXPort._fromListeningDescriptor(reactor, sock.fileno(), factory)  # type: ignore[no-untyped-call]
    else:
        # Linux passes these on to each connection that is accepted, which saves calls.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        port = EagerPort._fromListeningDescriptor(reactor, sock.fileno(), sock.family, factory)  # type: ignore[no-untyped-call]
        if tls is not None:
            port.transport = partial(TlsServer, tls)
    port.startListening()
    return port  # type: ignore[no-any-return]


class EagerPort(tcp.Port):
    """A TCP port."""

    transport: Any = EagerServer


class EagerUNIXPort(AdoptedUnixPort):
    """A port on a UNIX socket that somebody bound, and whose file and mode stay theirs."""

    transport: Any = EagerUNIXServer
