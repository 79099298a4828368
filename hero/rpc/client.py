"""Calls to a JSON-RPC service, behind a router or on a UNIX socket of this machine."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from hero.errors import (
    Forbidden,
    HeroError,
    LimitExceeded,
    RemoteError,
    Timeout,
    Unauthenticated,
    Unavailable,
)
from hero.identity.claims import Access
from hero.rpc.connection_errors import ConnectionLost, connection_error, was_cancelled
from hero.rpc.declare import Method, methods_of
from hero.rpc.endpoints import ServiceEndpointFactory
from hero.rpc.errors import error_from_object
from hero.rpc.pool import BoundedPool
from hero.rpc.urls import HttpUrl, parse_url
from hero.sids import new_sid

#: Bytes of an answer, at most.
MAX_ANSWER = 64 * 1024 * 1024

#: Seconds by which an HTTP exchange outlasts the wait for an operation that it carries.
_MARGIN = 15.0

#: Seconds for which an idle connection is kept: less than the other side keeps it.
_IDLE = 20


class RpcClient:
    """A client of the service at *url* (see `hero.rpc.urls`).

    *tls* checks the server's certificate: an `IPolicyForHTTPS` or an
    `IOpenSSLClientConnectionCreator`. *token* is a bearer token. *headers* go with every call.
    *timeout* is in seconds, for a whole call. *agent* replaces the network, in tests.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        tls: Any = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        agent: IAgent | None = None,
    ) -> None:
        target = parse_url(url)
        self.url = url
        self._reactor = reactor
        self._http_url = HttpUrl.from_text(target.http)
        self._headers = dict(headers or {})
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._pool = BoundedPool(reactor, persistent=target.socket is None)
        self._pool.maxPersistentPerHost = 8
        self._pool.cachedConnectionTimeout = _IDLE
        if agent is None:
            endpoints = ServiceEndpointFactory(reactor, target.socket, tls, min(timeout, 10.0))
            agent = Agent.usingEndpointFactory(reactor, endpoints, pool=self._pool)
        self._http = HTTPClient(agent)

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
    ) -> Any:
        """The result, a JSON value, of calling *method* with *params*, values msgspec can encode.

        *timeout* and *headers* go before those of the client. A *repeatable* call is made once
        more when the connection is lost before an answer. Raises the `HeroError` that the service
        answered with, `Unavailable`, `Timeout`, `LimitExceeded`.
        """
        call_id = next(self._ids)
        body = msgspec.json.encode(
            {"jsonrpc": "2.0", "id": call_id, "method": method, "params": dict(params or {})}
        )
        seconds = self._timeout if timeout is None else timeout
        exchange = Deferred.fromCoroutine(self._exchange(body, headers or {}, repeatable))
        exchange.addTimeout(seconds, self._reactor)
        try:
            status, answer = await exchange
        except DeferredTimeout:
            raise Timeout(f"no answer from {self.url} to {method} in {seconds:g} seconds") from None
        return self._result(status, answer, call_id)

    def proxy(self, declaration: type, *, headers: Mapping[str, str] | None = None) -> Any:
        """An object with the methods of *declaration*.

        They take the declared keywords, ``request_id`` (made up where a mutating call has none),
        for operations ``wait`` and ``timeout``, and else ``timeout`` for this client; and return
        the declared types, operations an `Operation`.
        """
        return _Proxy(self, declaration, dict(headers or {}))

    async def close(self) -> None:
        """Close the connections that are kept for the next call."""
        await self._pool.closeCachedConnections()

    async def _exchange(
        self, body: bytes, headers: Mapping[str, str], repeatable: bool
    ) -> tuple[int, bytes]:
        try:
            return await self._post(body, headers)
        except ConnectionLost:
            if not repeatable:
                raise
        await self._pool.closeCachedConnections()
        return await self._post(body, headers)

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        merged = Headers({"Content-Type": ["application/json"]})
        for name, value in {**self._headers, **headers}.items():
            merged.setRawHeaders(name, [value])
        try:
            response = await self._http.request(
                "POST",
                self._http_url,
                data=body,
                headers=merged,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            return response.code, await _read(response)
        except HeroError:
            raise
        except Exception as error:
            if was_cancelled(error):
                raise CancelledError() from None
            raise connection_error(error, self.url) from error

    def _result(self, status: int, body: bytes, call_id: int) -> Any:
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0":
            raise _refusal(status, answer, self.url)
        if (error := answer.get("error")) is not None:
            raise error_from_object(error)
        if answer.get("id") != call_id or "result" not in answer:
            raise RemoteError(f"{self.url} answered something else than what was asked")
        return answer["result"]


class _Proxy:
    """See `RpcClient.proxy`."""

    def __init__(self, client: RpcClient, declaration: type, headers: dict[str, str]) -> None:
        self._client = client
        self._headers = headers
        self._methods = methods_of(declaration)

    def __getattr__(self, name: str) -> Any:
        try:
            method = self._methods[name]
        except KeyError:
            raise AttributeError(name) from None

        async def call(**params: Any) -> Any:
            return await self._call(method, params)

        return call

    async def _call(self, method: Method, params: dict[str, Any]) -> Any:
        known = {**method.parameters, **method.options}
        timeout = None if "timeout" in known else params.pop("timeout", None)
        if unknown := params.keys() - known.keys():
            raise TypeError(f"{method.qualified_name} has no parameter {sorted(unknown)}")
        if method.operation:
            wait, default = params.get("wait", True), method.options["timeout"][1]
            timeout = (params.get("timeout", default) if wait else 0) + _MARGIN
        elif "wait" in method.parameters and timeout is None:
            timeout = self._client._timeout + params.get("wait", 0)
        if method.mutates and params.get("request_id") is None:
            params["request_id"] = new_sid("rq")
        value = await self._client.call(
            method.qualified_name,
            params,
            timeout=timeout,
            headers=self._headers,
            repeatable=_repeatable(method),
        )
        try:
            return msgspec.convert(value, method.answer)
        except msgspec.ValidationError as error:
            raise RemoteError(
                f"the answer to {method.qualified_name} from {self._client.url} cannot be "
                f"understood: {error}"
            ) from error


def _repeatable(method: Method) -> bool:
    """Whether a call, which has a request id, has no more effect twice than once."""
    return not method.mutates or (not method.secret and method.access is not Access.PUBLIC)


def _refusal(status: int, answer: Any, url: str) -> HeroError:
    """The error that an HTTP answer which is no JSON-RPC stands for."""
    members = answer if isinstance(answer, dict) else {}
    detail = str(
        members.get("detail", f"{url} answered with HTTP status {status}, not with JSON-RPC")
    )
    data = {name: members[name] for name in ("reason", "request_id") if name in members} | {
        "status": status
    }
    kinds: dict[int, type[HeroError]] = {
        401: Unauthenticated,
        403: Forbidden,
        404: Unavailable,
        413: LimitExceeded,
        502: Unavailable,
        503: Unavailable,
        504: Timeout,
    }
    return kinds.get(status, RemoteError)(detail, hint=members.get("hint"), data=data)


class _Body(Protocol):
    """Collects an answer; gives up when it is too large."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._chunks: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER:
            self._abort()
            if not self.done.called:
                self.done.errback(LimitExceeded(f"the answer has more than {MAX_ANSWER} bytes"))
        else:
            self._chunks.append(data)

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._chunks))
        else:
            self.done.errback(reason)

    def _abort(self) -> None:
        self._chunks.clear()
        if (transport := self.transport) is not None:
            getattr(transport, "abortConnection", transport.loseConnection)()


def _read(response: IResponse) -> Deferred[bytes]:
    body = _Body()
    response.deliverBody(body)
    return body.done
