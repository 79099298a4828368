"""Connecting to a UNIX socket, which either succeeds at once or not at all.

`connect(2)` on a UNIX socket that does not block never is under way: it joins the backlog, is
refused, or fails with EAGAIN where the backlog is full. Twisted's endpoint waits two turns of the
reactor for that, and with a connector, a wrapping factory and a timer; none of them is needed.
"""

from __future__ import annotations

import os
import socket
from errno import EAGAIN
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectError, NoProtocol, getConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from hero.router.fast.eager import EagerUNIXClient


def is_busy(error: BaseException) -> bool:
    """Whether a connection was refused only because the backlog of the service is full.

    The plain endpoint tells of it in the same way: as a `ConnectError` without a number.
    """
    return type(error) is ConnectError and error.osError is None


@implementer(IStreamClientEndpoint)
class EagerUNIXClientEndpoint:
    """Connects to the UNIX socket *path*; see `is_busy`. Plain twin: `UNIXClientEndpoint`.

    *timeout* is there for the twin's sake: nothing here takes any time.
    """

    def __init__(self, reactor: Any, path: str | bytes | Path, timeout: float = 30.0) -> None:
        self._reactor = reactor
        self._path = os.fsencode(path)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """A `Deferred` that has fired, with the connected protocol or a `ConnectError`."""
        try:
            sock = self._socket()
        except OSError as error:
            return fail(_connect_error(error))
        protocolFactory.doStart()
        protocol: Any = None
        try:
            protocol = protocolFactory.buildProtocol(UNIXAddress(self._path))
        except Exception:
            return fail()
        finally:
            if protocol is None:
                sock.close()
                protocolFactory.doStop()
        if protocol is None:
            return fail(NoProtocol())
        transport = EagerUNIXClient(
            sock, protocol, self._reactor, path=self._path, lost=protocolFactory.doStop
        )
        protocol.makeConnection(transport)
        return succeed(protocol)

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        return sock


def _connect_error(error: OSError) -> ConnectError:
    if error.errno is None or error.errno == EAGAIN:
        return ConnectError(string=error.strerror or str(error))
    return getConnectError(error)  # type: ignore[no-any-return]
