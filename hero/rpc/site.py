"""What each of our services answers on its UNIX socket.

=================================  ============================================
``/api/<context>/<kind>/rpc``      JSON-RPC 2.0
``/events``                        Server-Sent Events
``/health``                        ``{"status": "ok", …}``, or 503
``/metrics``                       Prometheus text format
``/openrpc.json``                  what the JSON-RPC methods are
``/.well-known/heroservice.json``  name, version, protocol, description, access
=================================  ============================================
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site

from hero import __version__
from hero.events import EventLog
from hero.identity.claims import Caller
from hero.rpc.body import BoundedRequest
from hero.rpc.event_stream import EventsResource
from hero.rpc.identity import caller_from_headers
from hero.rpc.metrics import RpcMetrics
from hero.rpc.metrics_text import metrics_text
from hero.rpc.openrpc import document
from hero.rpc.server import RpcResource
from hero.rpc.tree import Tree
from hero.rpc.unix import UnixService, listen_unix

__all__ = ["Health", "ServiceSite", "UnixService", "listen_unix", "service_site"]

#: Tells how a service is: JSON members, ``status`` among them; ``ok`` is well.
Health = Callable[[], Awaitable[Mapping[str, Any]]]

_CONTEXT = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")

#: Seconds for a request to arrive, and for which an idle connection is kept.
_PATIENCE = 75


class ServiceSite(Site):
    """A site that bounds request bodies."""

    def __init__(self, root: IResource, reactor: Any) -> None:
        super().__init__(root, requestFactory=BoundedRequest, timeout=_PATIENCE, reactor=reactor)  # type: ignore[no-untyped-call]

    def log(self, request: Any) -> None:
        """Write no access log: the router has one, and calls are counted."""


def service_site(
    *,
    reactor: Any,
    name: str,
    description: str,
    access: str,
    rpc: Mapping[str, Mapping[type, object]],
    registry: CollectorRegistry | None = None,
    events: EventLog | None = None,
    health: Health | None = None,
    extra: Mapping[bytes, IResource] | None = None,
) -> ServiceSite:
    """The site of the service *name*.

    *access* is who may call it through the router: ``cluster`` or ``public``. *rpc* maps each
    kind of API (``cloud``, ``explorer``, ``router``) to the implementations that it serves, by
    declaration. *extra* resources stand at the top, by name.
    """
    metrics = RpcMetrics(registry) if registry is not None else None
    declarations = {d: None for implementations in rpc.values() for d in implementations}
    root = Tree()
    root.putChild(
        b"api",
        _Contexts(
            {
                kind: RpcResource(implementations, caller=_api_caller, metrics=metrics)
                for kind, implementations in rpc.items()
            }
        ),
    )
    root.putChild(b"health", _HealthResource(name, health))
    root.putChild(b"openrpc.json", _Document(document(declarations, title=name)))
    manifest = {
        "name": name,
        "version": __version__,
        "protocol": "jsonrpc",
        "description": description,
        "access": access,
    }
    well_known = Tree()
    well_known.putChild(b"heroservice.json", _Document(manifest))
    root.putChild(b".well-known", well_known)
    if registry is not None:
        root.putChild(b"metrics", _MetricsResource(registry))
    if events is not None:
        root.putChild(b"events", EventsResource(events, reactor))
    for path, resource in (extra or {}).items():
        root.putChild(path, resource)
    return ServiceSite(root, reactor)


def _api_caller(request: Request) -> Caller:
    """Who sent *request*, about the context in its path ``/api/<context>/…``."""
    assert request.prepath is not None
    return caller_from_headers(request.requestHeaders, request.prepath[1].decode("ascii"))


class _Contexts(Tree):
    """``<context>/<kind>/rpc`` for every context that can have a name."""

    def __init__(self, apis: Mapping[str, IResource]) -> None:
        super().__init__()
        self._kinds = Tree()
        for kind, api in apis.items():
            place = Tree()
            place.putChild(b"rpc", api)
            self._kinds.putChild(kind.encode(), place)

    def getChild(self, path: bytes, request: Request) -> IResource:
        if _CONTEXT.match(path):
            return self._kinds
        return super().getChild(path, request)


class _Document(Tree):
    """A JSON value that does not change."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self._body = msgspec.json.encode(value)

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return self._body


class _MetricsResource(Tree):
    """The metrics of a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", CONTENT_TYPE_LATEST)
        return metrics_text(self._registry)


class _HealthResource(Tree):
    """How the service is: 200 when well, else 503."""

    _log = Logger()

    def __init__(self, name: str, health: Health | None) -> None:
        super().__init__()
        self._name = name
        self._health = health

    def render_GET(self, request: Request) -> int:
        gone: list[Any] = []
        request.notifyFinish().addErrback(gone.append)
        Deferred.fromCoroutine(self._answer(request, gone))
        return NOT_DONE_YET

    async def _answer(self, request: Request, gone: list[Any]) -> None:
        state: dict[str, Any] = {"status": "ok", "service": self._name, "version": __version__}
        if self._health is not None:
            try:
                state.update(await self._health())
            except Exception:
                self._log.failure("the health of {service} cannot be told", service=self._name)
                state["status"] = "failed"
        if gone:
            return
        request.setResponseCode(200 if state["status"] == "ok" else 503)
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        request.write(msgspec.json.encode(state))
        request.finish()
