"""Opening a byte tunnel: by the socket of this machine, or through the router that is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from hero.cli.joined_streams import StreamEnd
from hero.cli.remote import DEFAULT_PORT, remote_options
from hero.cli.session import Session
from hero.errors import (
    Conflict,
    Forbidden,
    HeroError,
    InvalidConfiguration,
    NotFound,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from hero.identity.half_closing_tls import HalfClosingTls
from hero.paths import MAX_SOCKET_PATH
from hero.router.errors import BadAnswer
from hero.router.head import ResponseHead, parse_response_head
from hero.router.limits import Limits
from hero.router.target import NAME
from hero.router.tunnel import UPGRADE
from hero.rpc.connection_errors import connection_error

#: Seconds to connect and to be answered.
_PATIENCE = 30.0
_LIMITS = Limits()
_LONGEST_REFUSAL = 65536
_TOKEN = re.compile(r"[!-~]+")
_NOT_A_TUNNEL = (
    'a tunnel is a socket with a file beside it that says {"protocol": "tunnel"}; '
    "hero route list shows them all"
)


class TunnelOpener:
    """Opens tunnels to one socket. ``where`` says by which way, for messages."""

    def __init__(
        self, reactor: Any, where: str, endpoint: IStreamClientEndpoint, request: bytes, tls: Any
    ) -> None:
        self.where = where
        self._reactor = reactor
        self._endpoint = endpoint
        self._request = request
        self._tls = tls

    async def open(self) -> StreamEnd:
        """A new tunnel's end. Raises `HeroError`."""
        end = _TunnelEnd(self._request, self.where)
        factory: Factory[Any] = Factory.forProtocol(lambda: self._protocol(end))
        factory.noisy = False
        opening = Deferred.fromCoroutine(self._open(factory, end))
        opening.addTimeout(_PATIENCE, self._reactor)
        try:
            await opening
        except HeroError:
            raise
        except DeferredTimeout:
            raise Timeout(f"{self.where}: no answer in {_PATIENCE:g} seconds") from None
        except CancelledError:
            raise
        except Exception as error:
            raise connection_error(error, self.where) from error
        return end

    async def _open(self, factory: Any, end: _TunnelEnd) -> None:
        protocol: Any = await self._endpoint.connect(factory)
        try:
            await end.opened
        except BaseException:
            protocol.transport.abortConnection()
            raise

    def _protocol(self, end: _TunnelEnd) -> Protocol:
        return end if self._tls is None else HalfClosingTls(self._tls, end)


async def find_opener(session: Session, reactor: Any, name: str) -> TunnelOpener:
    """How *session* gets to the socket *name*, ``SERVICE/SOCKET``. Raises `HeroError`."""
    service, _, socket = name.strip("/").partition("/")
    if NAME.fullmatch(service) is None or NAME.fullmatch(socket) is None:
        raise InvalidConfiguration(
            f"{name!r} is no SERVICE/SOCKET", hint="hero route list shows them all"
        )
    if not session.url:
        return _local_opener(reactor, session.paths.sockets / service / f"{socket}.sock")
    base, options = await remote_options(session, reactor)
    parts = urlsplit(base)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (DEFAULT_PORT if secure else 80)
    tls = options["tls"].creatorForNetloc(host, port) if secure else None
    endpoint = HostnameEndpoint(reactor, host, port)
    path = f"/{service}/{socket}/api/{session.context}/tunnel"
    request = _request(path, parts.netloc, options["token"])
    return TunnelOpener(reactor, f"{base}/{service}/{socket}", endpoint, request, tls)


def _local_opener(reactor: Any, path: Path) -> TunnelOpener:
    if not path.exists():
        raise NotFound(
            f"there is no socket {path}",
            hint="hero route list shows them all; --url names another machine's router",
        )
    if len(bytes(path)) > MAX_SOCKET_PATH:
        raise InvalidConfiguration(f"the path {path} is too long for a socket")
    return TunnelOpener(reactor, str(path), UNIXClientEndpoint(reactor, str(path)), b"", None)


def _request(path: str, host: str, token: str | None) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: Upgrade"]
    lines.append(f"Upgrade: {UPGRADE.decode()}")
    if token is not None:
        if _TOKEN.fullmatch(token) is None:
            raise InvalidConfiguration("the token has characters that no token has")
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class _TunnelEnd(StreamEnd):
    """Asks with *request* for a tunnel first, unless that is empty. ``opened`` then fires."""

    def __init__(self, request: bytes, where: str) -> None:
        super().__init__()
        self.opened: Deferred[None] = Deferred()
        self._request = request
        self._where = where
        self._open = False
        self._answer = b""
        self._head: ResponseHead | None = None

    def connectionMade(self) -> None:
        if self._request:
            self.transport.write(self._request)
        else:
            self._opened(b"")

    def dataReceived(self, data: bytes) -> None:
        if self._open:
            super().dataReceived(data)
        elif not self.opened.called:
            self._read_more(data)

    def _read_more(self, data: bytes) -> None:
        self._answer += data
        try:
            self._read_answer()
        except (HeroError, BadAnswer) as error:
            known = error if isinstance(error, HeroError) else self._no_router(str(error))
            self.opened.errback(Failure(known))

    def _read_answer(self) -> None:
        if self._head is None:
            end = self._answer.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(self._answer) > _LIMITS.head:
                    raise self._no_router("its answer does not begin")
                return
            self._head = parse_response_head(self._answer[:end], b"GET", _LIMITS)
            self._answer = self._answer[end:]
            if self._head.status == 101 and (self._head.upgrade or b"").lower() == UPGRADE:
                self._opened(self._answer)
                return
        length = min(self._head.length, _LONGEST_REFUSAL)
        if len(self._answer) >= length:
            raise self._refusal(self._head.status, self._answer)

    def _opened(self, early: bytes) -> None:
        self._early = early
        self._open = True
        super().connectionMade()
        self.opened.callback(None)

    def _refusal(self, status: int, body: bytes) -> HeroError:
        """What an answer that is no 101 means."""
        try:
            problem = json.loads(body)
        except (ValueError, RecursionError):
            problem = None
        members = problem if isinstance(problem, dict) else {}
        detail = str(members.get("detail", f"{self._where} answered with HTTP status {status}"))
        data = {name: members[name] for name in ("reason", "request_id") if name in members}
        kinds: dict[int, type[HeroError]] = {
            401: Unauthenticated,
            403: Forbidden,
            502: Unavailable,
            503: Unavailable,
            504: Timeout,
        }
        if members.get("reason") == "no_route":
            return NotFound(detail, hint="hero route list shows them all", data=data)
        if status in kinds:
            return kinds[status](detail, data=data)
        return Conflict(
            f"{self._where} is no tunnel (HTTP status {status})", hint=_NOT_A_TUNNEL, data=data
        )

    def _no_router(self, why: str) -> HeroError:
        return Unavailable(f"{self._where}: this is no router of Hero's: {why}")

    def readConnectionLost(self) -> None:
        if self._open:
            super().readConnectionLost()
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._open:
            super().connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(reason)
