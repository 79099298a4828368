"""JSON-RPC 2.0 over HTTP: one resource for the services that a path offers.

txjsonrpc-ng's resource finds the method; the envelope, the errors and the bounds are ours.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from twisted.web.server import Request as HttpRequest
from txjsonrpc_ng.web.jsonrpc import JSONRPC, Fault

from hero.errors import HeroError, InternalError
from hero.identity.claims import Caller
from hero.rpc.declare import Call
from hero.rpc.dispatch import ServedMethod, ServiceHandler
from hero.rpc.envelope import MEDIA_TYPES, Refused, Request, batch, failure, parse, success
from hero.rpc.errors import MethodNotFound
from hero.rpc.identity import caller_from_headers
from hero.rpc.metrics import RpcMetrics
from hero.rpc.openrpc import discovery
from hero.rpc.tree import NotThere, problem_answer


@attrs.frozen
class _Answer:
    """A response, None to a notification; ``error`` is what it tells of, if anything."""

    body: bytes | None
    error: HeroError | None = None


@attrs.define
class _Client:
    """The one who waits for the answer. *readings* are calls that change nothing."""

    readings: list[Deferred[_Answer]] = attrs.field(factory=list)
    gone: bool = False

    def left(self) -> None:
        """Nobody needs what was only to be read; what changes something goes on."""
        self.gone = True
        for reading in self.readings:
            reading.cancel()


class RpcResource(JSONRPC):  # type: ignore[misc]
    """Serves *implementations*, a map from declarations to the objects that implement them.

    *caller* tells who sent a request; by default the headers that the router sets do.
    *metrics*, where given, counts the calls.
    """

    isLeaf = False
    _log = Logger()

    def __init__(
        self,
        implementations: Mapping[type, object],
        *,
        caller: Callable[[HttpRequest], Caller] | None = None,
        metrics: RpcMetrics | None = None,
    ) -> None:
        super().__init__()
        self._caller = caller or (lambda request: caller_from_headers(request.requestHeaders))
        self._metrics = metrics
        for declaration, implementation in implementations.items():
            self.putSubHandler(declaration.__name__, ServiceHandler(declaration, implementation))
        self.putSubHandler("rpc", discovery(implementations))

    def getChild(self, path: bytes, request: HttpRequest) -> IResource:
        """Nothing is below the resource."""
        return NotThere()

    def render(self, request: HttpRequest) -> Any:
        """Answer an HTTP request."""
        if request.method != b"POST":
            request.setHeader("Allow", "POST")
            return problem_answer(
                request, 405, "method_not_allowed", "JSON-RPC calls are POST requests"
            )
        content_type = request.getHeader(b"Content-Type") or b""
        if content_type.decode("latin-1").partition(";")[0].strip().lower() not in MEDIA_TYPES:
            return problem_answer(
                request, 415, "unsupported_media_type", "send Content-Type: application/json"
            )
        client = _Client()
        request.notifyFinish().addErrback(lambda _: client.left())
        answer = Deferred.fromCoroutine(self._answer(request, client))
        answer.addErrback(self._lost, request, client)
        return NOT_DONE_YET

    def _lost(self, failure: Failure, request: HttpRequest, client: _Client) -> None:
        self._log.failure("an answer to {uri} was lost", failure, uri=request.uri)
        if not client.gone:
            request.loseConnection()

    async def _answer(self, request: HttpRequest, client: _Client) -> None:
        """Make the calls in *request* and write the response."""
        trace_id = _trace_id(request)
        call = Call(caller=self._caller(request), trace_id=trace_id)
        assert request.content is not None
        parsed = parse(request.content.read())
        under_way = []
        for member in parsed.calls:
            answer = Deferred.fromCoroutine(self._perform(member, call))
            under_way.append(answer)
            if isinstance(member, Request) and not self._mutates(member):
                client.readings.append(answer)
        answers = await gatherResults(under_way)
        if client.gone:
            return
        request.setHeader("X-Request-ID", trace_id)
        request.setHeader("Cache-Control", "no-store")
        bodies = [answer.body for answer in answers if answer.body is not None]
        if not bodies:
            request.setResponseCode(204)
            request.finish()
            return
        if not parsed.batch and (error := answers[0].error) is not None:
            request.setResponseCode(error.http_status)
            if error.http_status == 401:
                request.setHeader("WWW-Authenticate", "Bearer")
        body = batch(bodies) if parsed.batch else bodies[0]
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Content-Length", str(len(body)))
        request.write(body)
        request.finish()

    async def _perform(self, member: Request | Refused, call: Call) -> _Answer:
        if isinstance(member, Refused):
            return _Answer(failure(member.id, member.error, call.trace_id), member.error)
        try:
            served = self._find(member.method)
            if self._metrics is not None:
                with self._metrics.call(served.method):
                    result = await served(call, member.params)
            else:
                result = await served(call, member.params)
            body = success(member.id, result)
            error: HeroError | None = None
        except HeroError as raised:
            error = raised
        except CancelledError:
            return _Answer(None)
        except Exception:
            self._log.failure(
                "{method} failed; request {trace_id}",
                method=member.method,
                trace_id=call.trace_id,
            )
            error = InternalError(
                "the service failed to answer",
                hint="its log has the cause, by this request_id",
            )
        if member.notification:
            return _Answer(None)
        if error is not None:
            return _Answer(failure(member.id, error, call.trace_id), error)
        return _Answer(body)

    def _find(self, name: str) -> ServedMethod:
        try:
            function = self._getFunction(name)
        except Fault:
            function = None
        if not isinstance(function, ServedMethod):
            raise MethodNotFound(f"no method {name[:128]!r}", hint="rpc.discover lists them")
        return function

    def _mutates(self, member: Request) -> bool:
        try:
            return self._find(member.method).method.mutates
        except HeroError:
            return False


def _trace_id(request: HttpRequest) -> str:
    """The request id that the router chose, or a new one."""
    given = (request.getHeader(b"X-Request-ID") or b"").decode("latin-1")
    return given if _TRACE_ID.match(given) else secrets.token_hex(8)


_TRACE_ID = re.compile(r"[!-~]{1,128}\Z")
