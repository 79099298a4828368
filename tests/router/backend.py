"""A service for tests: an HTTP/1.1 server on a UNIX socket that h11 parses for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import h11
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


@attrs.define
class Seen:
    """A request as the service saw it. ``whole``: its end was seen too."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    whole: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


class H11Service(Factory):
    """Answers every request with 200, and keeps what it saw. What h11 refuses is an error."""

    noisy = False

    def __init__(self, manifest: dict[str, Any] | None = None) -> None:
        self.manifest = manifest
        self.seen: list[Seen] = []
        self.errors: list[str] = []
        self.connections = 0

    def buildProtocol(self, addr: Any) -> Protocol:
        self.connections += 1
        return _H11Connection(self)

    def answer(self, request: Seen) -> bytes:
        if request.target == b"/.well-known/heroservice.json":
            self.seen.remove(request)
            if self.manifest is not None:
                body = json.dumps(self.manifest).encode()
                return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        return (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if request.method == b"HEAD" else ANSWER
        )


class _H11Connection(Protocol):
    def __init__(self, service: H11Service) -> None:
        self._service = service
        self._parser = h11.Connection(h11.SERVER)
        self._request: Seen | None = None

    def dataReceived(self, data: bytes) -> None:
        self._parser.receive_data(data)
        try:
            self._events()
        except h11.RemoteProtocolError as error:
            self._service.errors.append(str(error))
            self.transport.loseConnection()

    def _events(self) -> None:
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Request):
                self._request = Seen(event.method, event.target, list(event.headers))
                self._service.seen.append(self._request)
            elif isinstance(event, h11.Data):
                self._request.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._request.trailers = list(event.headers)
                self._request.whole = True
                self.transport.write(self._service.answer(self._request))
                # h11 is only read with; tell it that the answer was sent.
                self._parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                self._parser.send(h11.EndOfMessage())
                if self._parser.our_state is h11.MUST_CLOSE:
                    self.transport.loseConnection()
                    return
                self._parser.start_next_cycle()
            else:
                return


class ScriptedService(Factory):
    """Hands each connection to *script*: called with (connection, data) as data comes."""

    noisy = False

    def __init__(self, script: Callable[[Any, bytes], None], *, manifest: bool = True) -> None:
        self.script = script
        self.manifest = manifest
        self.connections: list[Any] = []
        self.lost = 0
        #: Whether its connections stay open for sending when the other end has ended.
        self.half_closes = False

    def buildProtocol(self, addr: Any) -> Protocol:
        connection = _ScriptedConnection(self)
        self.connections.append(connection)
        return connection


@implementer(IHalfCloseableProtocol)
class _ScriptedConnection(Protocol):
    def __init__(self, service: ScriptedService) -> None:
        self.service = service
        self.ended = False
        self.received = b""
        self.connected_ = True

    def dataReceived(self, data: bytes) -> None:
        if self.service.manifest and data.startswith(b"GET /.well-known/heroservice.json "):
            body = b'{"access": "public"}'
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            return
        self.received += data
        self.service.script(self, data)

    def readConnectionLost(self) -> None:
        self.ended = True
        if not self.service.half_closes:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Nothing to do."""

    def connectionLost(self, reason: Any) -> None:
        self.connected_ = False
        self.service.lost += 1
