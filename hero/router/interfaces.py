"""What the parts of the data plane expect of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import Attribute, Interface

from hero.identity.claims import Caller
from hero.identity.user_certificates import Peer
from hero.router.errors import BadAnswer, Rejection
from hero.router.head import ResponseHead
from hero.router.limits import Limits
from hero.router.model import Connection


class IAnswerSink(Interface):
    """Who asked: takes the one answer of an exchange."""

    raw_chunks: bool = Attribute("Whether chunked answers are taken with their chunk framing.")

    def under_way(limits: Limits) -> None:
        """The request goes to a service with these limits."""

    def informational(head: ResponseHead) -> None:
        """Pass on an interim answer (RFC 9110 section 15.2)."""

    def start_answer(head: ResponseHead, data: bytes) -> None:
        """Begin the answer; *data* is the first part of its body, or empty."""

    def whole_answer(head: ResponseHead, data: bytes) -> None:
        """Pass on an answer that came at once; *data* is its body."""

    def answer_data(data: bytes) -> None:
        """Pass on a part of the answer's body."""

    def finish_answer() -> None:
        """The answer is complete."""

    def abort_answer(reason: str) -> None:
        """The answer was begun and will not be completed; let nobody believe that it is whole."""

    def refuse(rejection: Rejection) -> None:
        """Nothing was answered; say why."""

    def switch(head: ResponseHead) -> None:
        """The service changed the protocol (101): from here on bytes go both ways as they come."""

    def tunnel_end() -> None:
        """The service sends no more, after `switch`; it may still read."""

    def close_tunnel() -> None:
        """The service closed, after `switch`."""

    def pause_body() -> None:
        """Stop sending the request's body for now."""

    def resume_body() -> None:
        """Go on with the request's body."""


class IAnswerReader(Interface):
    """What a connection to a service tells of the answer it reads."""

    method: bytes = Attribute("The method of the request.")
    raw_chunks: bool = Attribute("Whether chunked answers are taken with their chunk framing.")

    def informational(head: ResponseHead) -> None:
        """An interim answer has come."""

    def answer_started(head: ResponseHead, data: bytes) -> None:
        """The final answer has begun; *data* is the first part of its body, or empty."""

    def answered(head: ResponseHead, data: bytes) -> None:
        """The answer is complete, body and all; the connection is no longer the reader's."""

    def answer_data(data: bytes) -> None:
        """A part of the body has come; or bytes have, after `switched`."""

    def answer_finished() -> None:
        """The answer is complete, and the connection is no longer the reader's."""

    def switched(head: ResponseHead) -> None:
        """The service changed the protocol. Raises `BadAnswer` where nobody asked for that."""

    def service_ended() -> None:
        """The service sends no more, after `switched`."""

    def upstream_failed(error: BadAnswer) -> None:
        """What came is no HTTP/1.1 answer; the connection is closed."""

    def upstream_lost(*, silent: bool, reused: bool) -> None:
        """The connection is lost; *silent*: before one byte of an answer had come."""

    def upstream_full() -> None:
        """The service reads too slowly."""

    def upstream_ready() -> None:
        """The service has read what was sent."""


class IUpstreamUser(Interface):
    """Who waits for a connection to a service."""

    def connected(upstream: Any) -> None:
        """Here it is."""

    def not_connected(why: str) -> None:
        """There is none to be had: nobody listens."""

    def crowded(why: str) -> None:
        """There is none to be had in time: too many others use or wait for one."""


class IClientConnection(Interface):
    """A client's connection, as the gateway sees it."""

    number: int = Attribute("Its number, which no other connection has.")
    peer: str = Attribute("The client's address.")
    secure: bool = Attribute("Whether it is TLS.")
    user: str = Attribute("Who sent the last request.")
    scheme: str = Attribute("``https`` or ``http``.")
    protocol: str = Attribute("The version of HTTP, as it stands in logs.")
    bytes_in: int = Attribute("Bytes that came.")
    consumed: int = Attribute("The same, without those that belong to a later request.")
    bytes_out: int = Attribute("Bytes that were sent.")
    deadline: float = Attribute("When `late` is to be called, on the gateway's clock.")

    def caller_fields(caller: Caller) -> bytes:
        """The fields of a forwarded head that say that *caller* asks over this connection."""

    def peer_identity(read: Callable[[Any], Peer | None]) -> Peer | None:
        """Who the client's certificate says it is; *read* reads that from a transport."""

    def late() -> None:
        """What was waited for did not come in time."""

    def stopping() -> None:
        """Take no further request, and close when nothing is under way."""

    def close() -> None:
        """Close after what was written was sent."""

    def abort() -> None:
        """Close at once."""

    def describe(now: float) -> Connection:
        """The connection as the management API shows it."""
