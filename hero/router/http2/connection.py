"""A client's connection that speaks HTTP/2: frames in and out, and when it ends.

`h2` keeps the state of connection and streams. What it lacks is here: bounds (see
`hero.router.http2.frames`), turns and back-pressure, time limits, and going gracefully: its own
GOAWAY ends everything at once (python-hyper/h2#1181), so the frames that announce an end are
written past it.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from hero.router.access_log import Record
from hero.router.connection import ClientConnection, unread
from hero.router.http2.encoder import StatelessEncoder
from hero.router.http2.frames import Flood, FrameTooLong, FrameWatch
from hero.router.http2.outbox import Outbox
from hero.router.http2.stream import Stream
from hero.router.http2.translation import Pair
from hero.router.interfaces import IClientConnection
from hero.router.model import Connection
from hero.router.request import Request

if TYPE_CHECKING:
    from hero.router.exchange import Exchange
    from hero.router.gateway import Gateway

_MAX_STREAMS = 100
#: What a client may send before the service takes it, on one stream and on all.
_STREAM_WINDOW, _WINDOW = 262_144, 1_048_576
_DEFAULT_WINDOW = 65535
#: What all streams together may hold of answers before every one of them has to wait.
_HELD = 1_048_576
#: Frames that answer the client's own, such as PING, are written also when it does not read.
_UNREAD_ANSWERS = 65536
_LAST_STREAM = 2**31 - 1
_FAREWELL = b"farewell"


class _Library(H2Connection):
    #: Sixteen bits' worth of closed streams would be several MiB for each connection.
    MAX_CLOSED_STREAMS = 1000


def _library(longest_head: int) -> H2Connection:
    """The state machine. Fields are checked by `hero.router.http2.translation`."""
    library = _Library(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    library.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
            SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: longest_head,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
        },
    )
    # Somewhat too long gets an answer that says so; beyond that, the connection is given up.
    library.decoder.max_header_list_size = 2 * longest_head
    library.encoder = StatelessEncoder()
    return library


@implementer(IClientConnection, IPushProducer)
class Http2Connection(ClientConnection):
    """One client's HTTP/2 connection; its requests are `Stream` objects."""

    protocol = "HTTP/2"

    def __init__(self, gateway: Gateway, number: int, *, secure: bool) -> None:
        super().__init__(gateway, number, secure=secure)
        limits = gateway.limits
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self._library = _library(limits.head)
        self._outbox = Outbox(self._library)
        self._watch = FrameWatch(2 * limits.head, self.since)
        self._turn: IDelayedCall | None = None
        self._begun = self._flushing = False
        self._writable = True
        self._reading = True
        self._unread_answers = 0
        self._unread = 0
        self._held = 0
        self._passed_on: dict[int, int] = {}
        #: How far the end has been announced: not, GOAWAY for later, GOAWAY for good.
        self._farewell = 0
        self._closing = False
        #: When something is due that belongs to no stream, and when a header block is.
        self._due = math.inf
        self._head_due = math.inf

    @property
    def consumed(self) -> int:
        """Bytes that came."""
        return self.bytes_in

    # From the transport.

    def connectionMade(self) -> None:
        super().connectionMade()
        self._due = self.soon(self._limits.head_time)
        self.transport.registerProducer(self, True)
        self._library.initiate_connection()
        self._library.increment_flow_control_window(_WINDOW - _DEFAULT_WINDOW)
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        self.bytes_in += len(data)
        if self._closing:
            return
        try:
            events = self._library.receive_data(self._watch.feed(data, self._now()))
        except Flood as flood:
            self._give_up(ErrorCodes.ENHANCE_YOUR_CALM, flood.reason)
            return
        except FrameTooLong:
            self._give_up(ErrorCodes.FRAME_SIZE_ERROR, "http2_protocol_error")
            return
        except ProtocolError as error:
            # `h2` has written its GOAWAY already.
            calm = error.error_code == ErrorCodes.ENHANCE_YOUR_CALM
            self._give_up(None, "http2_flood" if calm else "http2_protocol_error")
            return
        try:
            self._handle(events)
        except Flood as flood:
            self._give_up(ErrorCodes.ENHANCE_YOUR_CALM, flood.reason)
            return
        if not self._watch.in_head:
            self._head_due = math.inf
        elif self._head_due == math.inf:
            self._head_due = self.soon(self._limits.head_time)
        if self._watch.leaving and not self.streams:
            self.close()
        # TLS hands over record by record; what they make us send goes out together.
        self.turn()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closing = True
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()
        self._abandon()
        self._gateway.disconnected(self)

    def pauseProducing(self) -> None:
        """The client reads too slowly."""
        self._writable = False

    def resumeProducing(self) -> None:
        """The client has read what was sent."""
        self._writable = True
        self._unread_answers = 0
        if not self._reading:
            self._reading = True
            self.transport.resumeProducing()
        self._flush()

    def stopProducing(self) -> None:
        """The transport tells of its end by `connectionLost` as well."""

    def date(self) -> bytes:
        """The time, for an answer that does not tell it."""
        return self._gateway.date.value()

    # From the gateway: `IClientConnection`.

    def late(self) -> None:
        """What was waited for did not come in time."""
        now = self._now()
        if self._closing:
            if self._takes_more():
                self.soon(self._limits.linger_time)
            else:
                self.abort()
            return
        if self._head_due <= now:
            self._give_up(ErrorCodes.NO_ERROR, "head_timeout")
            return
        for stream in list(self.streams.values()):
            if stream.deadline <= now:
                stream.late()
        if self._due <= now:
            if self._farewell:
                self._last_word()
            else:
                self.stopping()
        self._flush()
        if not self._closing:
            deadlines = [stream.deadline for stream in self.streams.values()]
            self.deadline = min([self._due, self._head_due, *deadlines])

    def stopping(self) -> None:
        """Announce the end (RFC 9113 section 6.8).

        Requests that are on their way are still taken, until the client has answered a PING: it
        has read the announcement then.
        """
        if self._farewell or self._closing:
            return
        self._farewell = 1
        self._announce(_LAST_STREAM)
        self._library.ping(_FAREWELL)
        self._due = self.soon(self._limits.linger_time)
        self.turn()

    def close(self) -> None:
        """Close after what was written was sent."""
        if self._closing:
            return
        self._write(self._library.data_to_send())
        self._closing = True
        self._abandon()
        self.soon(self._limits.linger_time if self._writable else self._limits.stall_time)
        self.transport.unregisterProducer()
        if not self._reading:
            self.transport.resumeProducing()
        self.transport.loseConnection()

    def describe(self, now: float) -> Connection:
        """See `IClientConnection`; the oldest request stands for all."""
        streams = list(self.streams.values())
        record = streams[0].record if streams else None
        return self._describe(now, record, tunnel=any(stream.tunnel for stream in streams))

    # From a `Stream`.

    def read_request(self, block: bytes) -> Request:
        """Read a head. Raises `BadMessage`."""
        return self._gateway.heads.request(block)

    def record(self, request: Request | None) -> Record:
        """Begin the log record of *request*, or of what should have been one."""
        record = self._gateway.record(self, request, request.request_id if request else None)
        record.bytes_in = record.bytes_out = 0
        return record

    def exchange(self, stream: Stream, request: Request, record: Record) -> Exchange:
        """The exchange that answers *request*. Raises `Rejection`."""
        return self._gateway.exchange(self, stream, request, record)

    def send_pairs(self, number: int, pairs: list[Pair], *, last: bool = False) -> None:
        """Send the field list of an answer; with *last* no body follows."""
        self._library.send_headers(number, pairs, end_stream=last)
        self.turn()

    def ready(self, stream: Stream) -> None:
        """*stream* has something to send."""
        self._outbox.add(stream)
        self.turn()

    def holds(self, count: int) -> None:
        """The streams hold *count* bytes more than before, or less."""
        self._held += count

    def sent(self, count: int) -> None:
        """A frame with *count* bytes of an answer was sent."""
        self._held -= count
        self._watch.answered()

    @property
    def full(self) -> bool:
        """Whether all streams together hold too much."""
        return self._held > _HELD

    def acknowledge(self, count: int, number: int) -> None:
        """*count* bytes that came on stream *number* were passed on, or are not wanted."""
        if count:
            # All of a turn at once: `h2` opens a window that is shut by every bit it is told of,
            # and the client would go on in bits of that size.
            self._passed_on[number] = self._passed_on.get(number, 0) + count
            self.turn()

    def discard(self, count: int) -> None:
        """*count* bytes that came are not wanted: others may come, but not on that stream."""
        if count and not self._closing:
            self._library.increment_flow_control_window(count)
            self.turn()

    def reset(self, number: int, code: ErrorCodes) -> None:
        """Reset stream *number*."""
        if self._closing:
            return
        with suppress(StreamClosedError):  # the client's end of it was read already
            self._library.reset_stream(number, code)
        self.turn()

    def provoked(self) -> None:
        """A client's mistake ended a request that was under way. Raises `Flood`."""
        self._watch.reset_by_us(self._now())

    def finished(self, record: Record, reason: str | None) -> None:
        """*record*'s request was answered, or ended for *reason*."""
        # What the connection got and sent is counted for the record of an HTTP/1.1 request; here
        # each stream counts for itself.
        record.bytes_in -= self.consumed
        record.bytes_out -= self.bytes_out
        self._gateway.finished(self, record, reason)

    def over(self, stream: Stream) -> None:
        """*stream* is no more."""
        self._outbox.remove(stream)
        if self.streams.pop(stream.number, None) is not None:
            self._gateway.metrics.stream_closed()
        if self.streams or self._closing:
            return
        if self._farewell == 2 or self._watch.leaving:
            self.close()
        elif not self._farewell:
            self._due = self.soon(self._limits.idle_time)

    def still_reads(self) -> bool:
        """Whether the client, which has not taken all that was sent, is taking it."""
        return not self._writable and self._takes_more()

    def soon(self, seconds: float) -> float:
        """When *seconds* will have passed; `late` is called no later than that."""
        at: float = self._now() + seconds
        self.deadline = min(self.deadline, at) if not self._closing else at
        return at

    def turn(self) -> None:
        """Send what is to be sent at the end of this turn of the reactor, all at once."""
        if self._turn is None and not self._closing:
            self._turn = self._gateway.clock.callLater(0, self._at_end_of_turn)

    # Within.

    def _takes_more(self) -> bool:
        before, self._unread = self._unread, unread(self.transport)
        return self._unread not in (0, before)

    def _at_end_of_turn(self) -> None:
        self._turn = None
        self._flush()

    def _flush(self) -> None:
        if self._flushing or self._closing:
            return
        self._flushing = True
        try:
            self._open_windows()
            while True:
                more = self._writable and self._outbox.pump()
                self._write(self._library.data_to_send())
                if not (more and self._writable):
                    break
        finally:
            self._flushing = False

    def _open_windows(self) -> None:
        passed_on, self._passed_on = self._passed_on, {}
        for number, count in passed_on.items():
            self._library.acknowledge_received_data(count, number)

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self.bytes_out += len(data)
        if not self._writable:
            self._unread_answers += len(data)
            if self._reading and self._unread_answers > _UNREAD_ANSWERS:
                self._reading = False
                self.transport.pauseProducing()
        self.transport.write(data)

    def _announce(self, last_stream: int) -> None:
        frame = GoAwayFrame(0, last_stream_id=last_stream, error_code=ErrorCodes.NO_ERROR)
        self._write(self._library.data_to_send() + frame.serialize())

    def _last_word(self) -> None:
        """From here on no request is taken."""
        self._farewell = 2
        self._due = math.inf
        self._announce(self._library.highest_inbound_stream_id)
        if not self.streams:
            self.close()

    def _give_up(self, code: ErrorCodes | None, reason: str) -> None:
        """The client cannot be served any longer."""
        self._gateway.metrics.rejected(reason)
        if code is not None:
            self._library.close_connection(code)
        self.close()

    def _abandon(self) -> None:
        for stream in list(self.streams.values()):
            stream.cancelled()

    # Events of `h2`.

    def _handle(self, events: list[Event]) -> None:
        # What was reset in the same breath is not begun: `h2` takes nothing for it any more.
        gone = set()
        for event in events:
            if type(event) is StreamReset:
                gone.add(event.stream_id)
                self._stream_reset(event)
        for event in events:
            handle = _HANDLERS.get(type(event))
            if handle is not None and not self._closing:
                handle(self, event, gone)

    def _request_received(self, event: RequestReceived, gone: set[int]) -> None:
        number = event.stream_id
        if number in gone:
            return
        if self._farewell == 2:
            # It may be sent again elsewhere (RFC 9113 section 8.7).
            self._library.reset_stream(number, ErrorCodes.REFUSED_STREAM)
            return
        if self._now() - self.since >= self._limits.connection_time:
            self.stopping()
        self.requests += 1
        self._gateway.metrics.stream_opened()
        stream = self.streams[number] = Stream(self, number)
        if not self._farewell:
            self._due = math.inf
        stream.asked(event.headers, ended=event.stream_ended is not None)

    def _data_received(self, event: DataReceived, gone: set[int]) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            self.acknowledge(event.flow_controlled_length, event.stream_id)
        else:
            ended = event.stream_ended is not None
            stream.body(event.data, event.flow_controlled_length, ended=ended)

    def _trailers_received(self, event: TrailersReceived, gone: set[int]) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.trailers(event.headers)

    def _stream_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.cancelled()
        if not event.remote_reset:
            self.provoked()

    def _window_updated(self, event: WindowUpdated, gone: set[int]) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            self._outbox.add(stream)

    def _settings_changed(self, event: RemoteSettingsChanged, gone: set[int]) -> None:
        if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
            for stream in self.streams.values():
                self._outbox.add(stream)
        if not self._begun:
            self._begun = True
            if not self.streams and not self._farewell:
                self._due = self.soon(self._limits.idle_time)

    def _ping_answered(self, event: PingAckReceived, gone: set[int]) -> None:
        if self._farewell == 1 and event.ping_data == _FAREWELL:
            self._last_word()


_HANDLERS: dict[type[Event], Any] = {
    RequestReceived: Http2Connection._request_received,
    DataReceived: Http2Connection._data_received,
    TrailersReceived: Http2Connection._trailers_received,
    WindowUpdated: Http2Connection._window_updated,
    RemoteSettingsChanged: Http2Connection._settings_changed,
    PingAckReceived: Http2Connection._ping_answered,
}
