"""A client that speaks HTTP/2 with the library `h2`, and a router to speak it to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from hyperframe.frame import Frame, GoAwayFrame
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from hero.identity.tls import ServerTls
from hero.router.gateway import GatewayFactory
from hero.router.tls_listener import over_tls
from tests.router.harness import Wire
from tests.router.test_tls import TlsCase

Pair = tuple[bytes, bytes]
#: What the router offers by ALPN.
PROTOCOLS = (b"h2", b"http/1.1")


@attrs.define
class Answer:
    """What came on one stream."""

    interim: list[bytes] = attrs.field(factory=list)
    fields: list[Pair] | None = None
    body: bytearray = attrs.field(factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> bytes | None:
        return self.values(b":status")[0] if self.fields is not None else None

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields or [] if key == name]


class Http2Client(Wire):
    """Speaks what it is told, also what it should not. Call `flush` after using ``h2``.

    Windows open again as data comes, unless ``greedy`` is false.
    """

    def __init__(self) -> None:
        super().__init__()
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.answers: dict[int, Answer] = {}
        #: Last stream and error code of each GOAWAY. The library would end all streams for one.
        self.goaways: list[tuple[int, int]] = []
        self.events: list[Any] = []
        self.greedy = True
        self._buffer = b""

    def connectionMade(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.send(self.h2.data_to_send())

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                break
            wire, self._buffer = self._buffer[: 9 + length], self._buffer[9 + length :]
            if isinstance(frame, GoAwayFrame):
                frame.parse_body(memoryview(wire[9:]))
                self.goaways.append((frame.last_stream_id, frame.error_code))
            else:
                for event in self.h2.receive_data(wire):
                    self._event(event)
        self.flush()
        super().dataReceived(data)

    def _event(self, event: Any) -> None:
        self.events.append(event)
        answer = self.answers.get(getattr(event, "stream_id", 0))
        if answer is None:
            return
        if isinstance(event, InformationalResponseReceived):
            answer.interim.append(dict(event.headers)[b":status"])
        elif isinstance(event, ResponseReceived):
            answer.fields = [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, DataReceived):
            answer.body += event.data
            if self.greedy:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code)

    def ask(self, pairs: Sequence[Pair], *, end: bool = True) -> int:
        """Begin a request with exactly *pairs*; returns the stream."""
        number = self.h2.get_next_available_stream_id()
        self.answers[number] = Answer()
        self.h2.send_headers(number, pairs, end_stream=end)
        self.flush()
        return number

    def get(self, path: bytes = b"/demo/web/", *more: Pair, end: bool = True) -> int:
        """Begin a GET request."""
        return self.ask(request(b"GET", path, *more), end=end)

    async def answer(self, number: int) -> Answer:
        """The answer on stream *number*, when nothing more will come."""
        await self.until(lambda wire: wire.answers[number].over)
        return self.answers[number]

    async def data(self, number: int, body: bytes, *, end: bool = True) -> None:
        """Send *body* as the windows allow."""
        while body:
            room = min(self.h2.local_flow_control_window(number), 16384)
            if self.closed or self.answers[number].reset is not None:
                return
            if not room:
                await self.until(
                    lambda wire: (
                        wire.answers[number].over or wire.h2.local_flow_control_window(number)
                    )
                )
                if self.answers[number].over:
                    return
                continue
            part, body = body[:room], body[room:]
            self.h2.send_data(number, part, end_stream=end and not body)
            self.flush()
        self.flush()


def request(method: bytes, path: bytes, *more: Pair, authority: bytes = b"a") -> list[Pair]:
    """The field list of a request."""
    return [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", authority),
        (b":path", path),
        *more,
    ]


@implementer(IOpenSSLClientConnectionCreator)
class _Tls:
    def __init__(self, protocols: list[bytes]) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_alpn_protos(protocols)

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


class Http2Case(TlsCase):
    """A router whose port speaks HTTP/2 and HTTP/1.1 over TLS."""

    async def listen(self) -> int:
        tls = ServerTls(self.prepare_identity(), protocols=PROTOCOLS)
        factory = over_tls(tls, GatewayFactory(self.gateway, secure=True), reactor)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        self.port: int = port.getHost().port
        return self.port

    async def http2(self) -> Http2Client:
        """A connection that speaks HTTP/2."""
        return await self.speaking([b"h2"], Http2Client())

    async def speaking(self, protocols: list[bytes], wire: Any) -> Any:
        """A connection that offers *protocols* by ALPN."""
        if not hasattr(self, "port"):
            await self.listen()
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        await connectProtocol(wrapClientTLS(_Tls(protocols), tcp), wire)
        self.wires.append(wire)
        return wire
