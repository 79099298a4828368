"""What every connection of a client has, whichever version of HTTP it speaks."""

from __future__ import annotations

import array
import fcntl
import termios
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol

from hero.identity.claims import Caller
from hero.identity.user_certificates import Peer
from hero.router.access_log import Record
from hero.router.forwarding import caller_fields
from hero.router.model import Connection

if TYPE_CHECKING:
    from hero.router.gateway import Gateway


def unread(transport: Any) -> int:
    """How many of the bytes that were sent the other end has not got yet (SIOCOUTQ, tcp(7))."""
    left = array.array("i", [0])
    try:
        fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, left)
    except (OSError, ValueError):
        return 0  # it is closed
    return left[0]


class ClientConnection(Protocol):
    """The part of an `IClientConnection` that is the same for all.

    ``protocol`` is the version of HTTP, as it stands in logs.
    """

    transport: Any
    protocol = "HTTP/1.1"

    def __init__(self, gateway: Gateway, number: int, *, secure: bool) -> None:
        self._gateway = gateway
        self._limits = gateway.limits
        self._now = gateway.clock.seconds
        self.number = number
        self.secure = secure
        self.scheme = "https" if secure else "http"
        self.deadline = 0.0
        self.since = self._now()
        self.user = "anonymous"
        self.peer = "unknown"
        self.requests = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self._identity: Peer | None = None
        self._identity_read = False
        self._caller: Caller | None = None
        self._caller_fields = b""

    def caller_fields(self, caller: Caller) -> bytes:
        """The fields of a forwarded head that say that *caller* asks over this connection."""
        if caller is not self._caller:
            self._caller = caller
            self.user = caller.user
            self._caller_fields = caller_fields(caller, address=self.peer, scheme=self.scheme)
        return self._caller_fields

    def peer_identity(self, read: Callable[[Any], Peer | None]) -> Peer | None:
        """See `IClientConnection`. It is known once the handshake is complete, and then fixed."""
        if not self._identity_read:
            self._identity_read = True
            self._identity = read(self.transport)
        return self._identity

    def connectionMade(self) -> None:
        transport = self.transport
        self.peer = str(getattr(transport.getPeer(), "host", "local"))
        self._wait(self._limits.head_time)
        self._gateway.connected(self)

    def abort(self) -> None:
        """Close at once."""
        self.transport.abortConnection()

    def _wait(self, seconds: float) -> None:
        self.deadline = self._now() + seconds

    def _describe(self, now: float, record: Record | None, *, tunnel: bool) -> Connection:
        since = datetime.now(UTC).timestamp() - (now - self.since)
        return Connection(
            id=self.number,
            peer=self.peer,
            user=self.user,
            since=datetime.fromtimestamp(since, UTC),
            requests=self.requests,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            request=f"{record.method} {record.path}" if record is not None else None,
            tunnel=tunnel,
            protocol=self.protocol,
            secure=self.secure,
        )
