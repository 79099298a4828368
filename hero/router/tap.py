"""``twistd hero-router``: how the process is put together."""

from __future__ import annotations

import os
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.application.service import IService
from twisted.web.resource import IResource

from hero.errors import HeroError
from hero.identity.node import ensure_master_identity
from hero.identity.tls import ServerTls
from hero.router.activation import inherited_sockets
from hero.router.api import RouterService
from hero.router.listening import Listeners, open_listener
from hero.router.management import GatewayView, RouterApi, RouterView
from hero.router.metrics import RouterMetrics
from hero.router.service import RouterProcess
from hero.router.serving import OwnServing, Serving, public_files
from hero.router.settings import Options
from hero.router.takeover import Predecessor
from hero.router.worker_metrics import gathered_metrics
from hero.router.workers import Workers
from hero.rpc.site import UnixService, service_site

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """Take the ports and assemble the router. Exits with a message where that cannot be."""
    from twisted.internet import reactor

    try:
        return _assemble(reactor, options)
    except HeroError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        raise SystemExit(f"hero-router: {error.detail}{hint}") from None
    except OSError as error:
        raise SystemExit(f"hero-router: {error}") from None


def _assemble(reactor: Any, options: Options) -> IService:
    paths = options.paths
    paths.ensure()
    if options["mode"] != "worker":
        ensure_master_identity(paths, options.addresses)
    # What is wrong with certificates is told here, not by each worker.
    ServerTls(paths.tls, public=public_files(options))
    predecessor = Predecessor.find(paths.run)
    listeners = _listen(options, predecessor)
    registry = CollectorRegistry()
    serving: Serving
    view: RouterView
    extra: dict[bytes, IResource] = {}
    if options["workers"] == 1:
        serving = OwnServing(reactor, options, listeners, RouterMetrics(registry))
        view = GatewayView(serving.gateway)
    else:
        serving = view = workers = Workers(reactor, options, listeners, options["workers"])
        extra[b"metrics"] = gathered_metrics(registry, workers)
    site = service_site(
        reactor=reactor,
        name="hero-router",
        description="The one network door of this node",
        access="cluster",
        rpc={"router": {RouterService: RouterApi(view, listeners)}},
        registry=registry,
        extra=extra,
    )
    management = UnixService(reactor, paths.router_socket, site, replace=predecessor is not None)
    return RouterProcess(reactor, options, listeners, serving, management, predecessor)


def _listen(options: Options, predecessor: Predecessor | None) -> Listeners:
    """The listeners that *options* ask for: those of the predecessor where it has them."""
    inherited = inherited_sockets(os.environ)
    listeners = []
    for spec in options.listen:
        taken = predecessor.take(spec) if predecessor is not None else None
        listener = taken or open_listener(spec, inherited)
        listeners.append(listener.enough_for(options["workers"]))
    return Listeners(listeners)
