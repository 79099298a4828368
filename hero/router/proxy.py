"""`ReverseProxyResource`: one for each socket that was discovered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from hero.errors import Timeout
from hero.identity.claims import Access, Caller
from hero.router.entries import Identity
from hero.router.errors import BadAnswer, Rejection
from hero.router.exchange import Exchange
from hero.router.fast.connector import EagerUNIXClientEndpoint
from hero.router.forwarding import caller_fields, request_start
from hero.router.head import RequestHead, parse_request_head
from hero.router.heads import Heads
from hero.router.ids import IdSource
from hero.router.limits import Limits
from hero.router.manifest import Manifest, read_manifest_file
from hero.router.manifest_fetch import fetch_manifest, look_whether_somebody_listens
from hero.router.model import Route, RouteLimits, RouteState
from hero.router.pool import UpstreamPool
from hero.router.site_sink import SiteSink
from hero.router.target import Target
from hero.router.tunnel import PROTOCOL, TunnelExchange

_FRAMED_HERE = (b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"connection")
_ids = IdSource()


@implementer(IResource)
@attrs.define(eq=False, kw_only=True, slots=False)
class ReverseProxyResource:
    """Forwards requests to the HTTP/1.1 server on the UNIX socket *path*.

    The router's front calls `forward`. It is an `IResource` too, so that it can be put into any
    `twisted.web.server.Site`::

        root.putChild(b"shop", ReverseProxyResource.for_socket(reactor, Path("/run/shop.sock")))

    Mounted so, *identify* says who is calling; without it everybody is anonymous. ``access`` is
    the router's business alone.

    *manifest_file* is the manifest beside the socket, and its identity; without one the service is
    asked. ``limits`` are the given ones with what the manifest changes in them.
    """

    reactor: Any
    service: str
    socket: str
    path: Path
    manifest_file: tuple[Path, Identity] | None = None
    default_access: str = "cluster"
    limits: Limits = attrs.field(factory=Limits)
    heads: Heads | None = None
    identify: Callable[[Request], Caller] = attrs.field(default=lambda _: Caller.anonymous())
    discovered_at: datetime = attrs.field(factory=lambda: datetime.now(UTC))

    pool: UpstreamPool = attrs.field(init=False)
    manifest: Manifest | None = attrs.field(init=False, default=None)
    access: str = attrs.field(init=False)
    state: RouteState = attrs.field(init=False, default=RouteState.DOWN)
    reason: str | None = attrs.field(init=False, default="not used yet")
    requests: int = attrs.field(init=False, default=0)
    active: int = attrs.field(init=False, default=0)
    #: Whether there is a manifest that cannot be read, or the service did not tell.
    unclear: bool = attrs.field(init=False, default=False)
    #: Whether it is a byte tunnel, to a service that need not speak HTTP.
    tunnel: bool = attrs.field(init=False, default=False)
    #: What is wrong with the manifest beside the socket.
    _flaw: str | None = attrs.field(init=False, default=None)
    _routers_limits: Limits = attrs.field(init=False)
    #: Whether the service is asked for paths with the prefix.
    keeps_prefix: bool = attrs.field(init=False, default=False)
    _known: bool = attrs.field(init=False, default=False)
    _fetching: bool = attrs.field(init=False, default=False)
    _waiting: list[Callable[[], None]] = attrs.field(init=False, factory=list)

    #: `IResource`: everything below belongs to the service.
    isLeaf = True

    def __attrs_post_init__(self) -> None:
        endpoint = EagerUNIXClientEndpoint(self.reactor, str(self.path))
        heads = self.heads or Heads(self.limits)
        self.pool = UpstreamPool(self.reactor, endpoint, self.limits, heads)
        self.access = "cluster"
        self._routers_limits = self.limits
        if self.manifest_file is not None:
            self._read_file(*self.manifest_file)
            if self._untouched:
                self.answered()

    @classmethod
    def for_socket(cls, reactor: Any, path: Path, **more: Any) -> ReverseProxyResource:
        """A resource for *path* outside the router's own tree."""
        return cls(reactor=reactor, service=path.parent.name, socket=path.stem, path=path, **more)

    @property
    def prefix(self) -> str:
        return f"/{self.service}/{self.socket}"

    @property
    def listening(self) -> bool:
        """Whether somebody listens on the socket, as far as `when_known` found out."""
        return self._known

    def when_known(self, callback: Callable[[], None]) -> None:
        """Call *callback* when the manifest has been read, or could not be."""
        if self._known:
            callback()
            return
        self._waiting.append(callback)
        self.refresh()

    def refresh(self) -> None:
        """Read the manifest, unless that is under way."""
        if self._fetching:
            return
        self._fetching = True
        if self.manifest_file is not None:
            self._read_file(*self.manifest_file)
            if self._untouched:
                self._settle(known=True)
                return
            looking = Deferred.fromCoroutine(look_whether_somebody_listens(self.pool))
            looking.addCallbacks(self._seen, self._not_fetched)
            return
        fetched = fetch_manifest(self.reactor, self.pool, self.limits)
        fetched.addCallbacks(self._fetched, self._not_fetched)

    def set_limits(self, limits: Limits) -> None:
        """The router's limits are *limits* now."""
        self._routers_limits = limits
        self._learn(self.manifest, self.access)

    def _learn(self, manifest: Manifest | None, access: str) -> None:
        self.manifest = manifest
        self.access = access
        limits = self._routers_limits
        self.limits = self.pool.limits = manifest.applied_to(limits) if manifest else limits
        self.keeps_prefix = manifest is not None and manifest.prefix == "keep"

    @property
    def _untouched(self) -> bool:
        """Whether only who asks for it is connected: what listens may be disturbed by others, such
        as one that says something first."""
        return self.tunnel or self._flaw is not None

    def _read_file(self, path: Path, identity: Identity) -> None:
        """Read the manifest beside the socket."""
        try:
            manifest = read_manifest_file(path, identity, self._routers_limits)
        except BadAnswer as error:
            self._flaw = self.reason = str(error)
            self.unclear, self.tunnel, self._known = True, False, True
            self._learn(None, "cluster")
            return
        self._flaw, self.unclear = None, False
        self._known = self.tunnel = manifest.protocol == PROTOCOL
        if self.tunnel:
            # Whoever gets through is not known to the service.
            self._learn(manifest, "public" if manifest.access == "public" else Access.OPERATOR)
        else:
            self._learn(manifest, manifest.access or self.default_access)

    def _seen(self, _: None) -> None:
        """Somebody listens."""
        self.answered()
        self._settle(known=True)

    def _fetched(self, manifest: Manifest | None) -> None:
        """*manifest* is None for a service that answers, and has none."""
        declared = manifest.access if manifest is not None else None
        self._learn(manifest, declared or self.default_access)
        self.unclear = False
        self.answered()
        self._settle(known=True)

    def _not_fetched(self, failure: Failure) -> None:
        """Nobody answered, or nothing sensible: then only the cluster's own may call."""
        listens = failure.check(BadAnswer, Timeout) is not None
        if self.manifest_file is None:
            self._learn(None, "cluster")
            self.unclear = listens
        if listens:
            self.answered()
            self.reason = failure.getErrorMessage()
        else:
            self.refused()
        self._settle(known=listens)

    def _settle(self, *, known: bool) -> None:
        self._known = known
        self._fetching = False
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()

    def answered(self) -> None:
        """Somebody listens."""
        self.state = RouteState.UP
        self.reason = self._flaw

    def refused(self) -> None:
        """Nobody listens. Who listens next may be another, with another manifest."""
        self.state = RouteState.DOWN
        self.reason = "nobody listens on the socket"
        self._known = self._untouched

    def exchange(
        self,
        sink: Any,
        head: RequestHead,
        wire: bytes,
        upgrade: bytes | None,
        admit: Callable[[], None] | None,
    ) -> Exchange:
        """What carries a request to the service; see `Exchange`."""
        kind = TunnelExchange if self.tunnel else Exchange
        return kind(self, sink, head, wire, upgrade, admit)

    def describe(self) -> Route:
        """The route as the management API shows it."""
        manifest = self.manifest
        return Route(
            service=self.service,
            socket=self.socket,
            prefix=self.prefix,
            path=str(self.path),
            state=self.state,
            access=self.access,
            reason=self.reason,
            name=manifest.name if manifest else None,
            version=manifest.version if manifest else None,
            protocol=manifest.protocol if manifest else None,
            description=manifest.description if manifest else None,
            discovered_at=self.discovered_at,
            requests=self.requests,
            active=self.active,
            pool=self.pool.stats(),
            limits=self._describe_limits(),
        )

    def _describe_limits(self) -> RouteLimits:
        limits = self.limits
        return RouteLimits(
            upstreams=limits.upstreams,
            waiting=limits.waiting,
            body=limits.body,
            connect_time=limits.connect_time,
            wait_time=limits.wait_time,
            answer_time=limits.answer_time,
            stall_time=limits.stall_time,
            whole_time=limits.whole_time,
            tunnel_time=limits.tunnel_time,
        )

    def getChildWithDefault(self, name: bytes, request: Any) -> ReverseProxyResource:
        return self

    def putChild(self, path: bytes, child: Any) -> None:
        raise TypeError("everything below a ReverseProxyResource belongs to its service")

    def render(self, request: Request) -> int:
        """`IResource`: forward *request*, whose body twisted.web has read already."""
        request_id = _ids.take()
        sink = SiteSink(self.reactor, request, self.limits, request_id)
        try:
            head = head_of(request, self.limits)
        except Rejection as rejection:
            sink.refuse(rejection)
            return NOT_DONE_YET
        # What is below the prefix is passed on as it came, not as twisted.web unquoted it.
        path, question, query = head.target.partition(b"?")
        below = path.split(b"/")[len(request.prepath or []) + 1 :]
        rest = b"/" + b"/".join(below)
        target = Target.below(self.service, self.socket, rest, question + query)
        caller = self.identify(request)
        wire = (
            request_start(head, target, None, traced=False, token=None)
            + caller_fields(
                caller,
                address=getattr(request.getClientAddress(), "host", "unknown"),
                scheme="https" if request.isSecure() else "http",
            )
            + _ids.fields(request_id, None)
        )
        sink.run(self.exchange(sink, head, wire, None, None))
        return NOT_DONE_YET


def head_of(request: Request, limits: Limits) -> RequestHead:
    """The head of a request that twisted.web parsed; its body has a length in any case.

    Raises `Rejection` for one that twisted.web accepts and we do not.
    """
    content = request.content
    assert content is not None
    length = content.seek(0, 2)
    content.seek(0)
    lines = [b"%b %b HTTP/1.1" % (request.method, request.uri)]
    lines += [
        b"%b: %b" % (name, value)
        for name, values in request.requestHeaders.getAllRawHeaders()
        for value in values
        if name.lower() not in _FRAMED_HERE
    ]
    if length:
        lines.append(b"Content-Length: %d" % length)
    if not request.requestHeaders.hasHeader(b"host"):
        lines.append(b"Host: hero")
    return parse_request_head(b"\r\n".join(lines) + b"\r\n\r\n", limits)
