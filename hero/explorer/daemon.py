"""An explorer, put together: started, kept going, stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.web.server import Site

from hero.compute.api import ComputeService
from hero.compute.model import Vm
from hero.errors import HeroError, InternalError
from hero.events import EventLog
from hero.explorer.api import ExplorerService
from hero.explorer.cluster import ClusterCompute
from hero.explorer.connections import Connections
from hero.explorer.deployment import Deployer
from hero.explorer.index import VmIndex, as_deleted
from hero.explorer.intents import IntentStore
from hero.explorer.joining import Advertised, Joining
from hero.explorer.leases import Pace
from hero.explorer.model import Node, NodeState
from hero.explorer.node_proxy import NodeProxy, Patience
from hero.explorer.recovery import Recovery
from hero.explorer.registry import Registry
from hero.explorer.service import Explorer
from hero.explorer.sessions import Sessions
from hero.explorer.tokens import Tokens
from hero.identity.authority import Authority
from hero.identity.node import NodeIdentity, ensure_master_identity
from hero.identity.revocation import RevokedNodes
from hero.identity.tokens import TokenFile
from hero.operation_log import OperationLog
from hero.paths import HeroPaths
from hero.rpc.site import UnixService, service_site
from hero.store import Database

MIGRATIONS = Path(__file__).parent / "migrations"

#: Seconds between looks at leases, and between rounds of upkeep.
_TICK = 1.0
_UPKEEP = 3600.0


def utc_now() -> datetime:
    """The time of day, with its zone."""
    return datetime.now(UTC)


class ExplorerDaemon(Service):
    """Everything that an explorer process consists of.

    *mode* is ``local`` or ``master``. *advertised* tells how other machines reach this one.
    *database_url* is SQLAlchemy's; by default a file in ``var/state``. *fatal* is called with an
    error that makes it impossible to start.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        paths: HeroPaths,
        *,
        mode: str,
        advertised: Advertised,
        pace: Pace,
        fatal: Callable[[HeroError], None],
        database_url: str | None = None,
        patience: Patience | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._reactor = reactor
        self._paths = paths
        self._advertised = advertised
        self._fatal = fatal
        self._now = now
        self.identity: NodeIdentity = ensure_master_identity(paths, advertised.host_names())
        self.database = Database(
            reactor, database_url or f"sqlite:///{paths.state / 'explorer.db'}", MIGRATIONS
        )
        self.events = EventLog(reactor)
        self.operations = OperationLog(
            self.database, reactor, self.events, node_sid=self.identity.node_sid
        )
        self.registry = Registry(
            self.database,
            local_sid=self.identity.node_sid,
            local_address=f"unix://{paths.compute_socket}",
            pace=pace,
            monotonic=monotonic,
            now=now,
            publish=self._publish_node,
        )
        self.index = VmIndex(self.database, now, self._publish_vm)
        self.intents = IntentStore(self.database, now)
        self.tokens = Tokens(self.database, TokenFile(paths.tokens_file), now)
        self._connections = Connections(reactor, paths.tls)
        proxy = NodeProxy(
            reactor, self._connections, local_sid=self.identity.node_sid, patience=patience
        )
        deployer = Deployer(self.registry, proxy, self.intents, self._publish_vm)
        self.joining = Joining(
            self.database,
            self.registry,
            Authority.load(paths.tls),
            mode=mode,
            addresses=advertised.urls,
            revoked=RevokedNodes(paths.state / "revoked.json"),
            now=now,
        )
        self.cluster = ClusterCompute(self.registry, self.index, proxy, deployer, self.operations)
        self.explorer = Explorer(
            cluster_id=self.identity.cluster_id,
            mode=mode,
            addresses=advertised.urls,
            registry=self.registry,
            index=self.index,
            deployer=deployer,
            joining=self.joining,
            tokens=self.tokens,
            sessions=Sessions(self.database, now),
            operations=self.operations,
        )
        self.recovery = Recovery(
            reactor, self.operations, self.registry, self.intents, deployer, self.cluster
        )
        self._server = UnixService(reactor, paths.explorer_socket, self.site())
        self._loops: list[LoopingCall] = []
        self.started: Deferred[None] | None = None

    def site(self) -> Site:
        """What answers on the explorer's socket."""
        registry = CollectorRegistry()
        registry.register(NodeMetrics(self.registry))
        return service_site(
            reactor=self._reactor,
            name="explorer",
            description="The cluster: nodes, placement, joining, and every VM by one API",
            access="public",
            rpc={
                "cloud": {ComputeService: self.cluster},
                "explorer": {ExplorerService: self.explorer},
            },
            registry=registry,
            events=self.events,
            health=self._health,
        )

    def startService(self) -> None:
        """Open the database, read it, settle what was interrupted, then serve."""
        super().startService()  # type: ignore[no-untyped-call]
        self.started = Deferred.fromCoroutine(self._start())

    def stopService(self) -> Deferred[None]:
        """Stop serving, and leave what is under way to the next start."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self.started is not None:
            await self.started
        for loop in self._loops:
            loop.stop()
        self._loops.clear()
        self.recovery.stop()
        self.operations.stop()
        if self._server.running:
            await self._server.stopService()
        await self._connections.close()
        await deferToThread(self.database.close)

    async def _start(self) -> None:
        try:
            self.database.open()
            await self.registry.load()
            await self.tokens.load()
            self.joining.write_revoked()
            await self.recovery.start()
            self._server.startService()
        except Exception as error:
            self._fail(error)
            return
        self._log.info(
            "hero-explorer: cluster {cluster}, node {node}, on {socket}",
            cluster=self.identity.cluster_id,
            node=self.identity.node_sid,
            socket=str(self._paths.explorer_socket),
        )
        self._every(_TICK, self.registry.tick)
        self._every(_UPKEEP, self._upkeep)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, HeroError):
            self._log.failure("the explorer cannot start")
            error = InternalError(f"the explorer cannot start: {error}", hint="see its log")
        self._fatal(error)

    def _every(self, seconds: float, work: Callable[[], Any]) -> None:
        async def safely() -> None:
            try:
                await maybeDeferred(work)
            except Exception:
                self._log.failure("{work} failed; it will be tried again", work=work.__name__)

        loop = LoopingCall(lambda: Deferred.fromCoroutine(safely()))
        loop.clock = self._reactor
        loop.start(seconds)
        self._loops.append(loop)

    async def _upkeep(self) -> None:
        """Renew this machine's certificate when it is due, and drop what has had its time."""
        self.identity = await deferToThread(
            ensure_master_identity, self._paths, self._advertised.host_names()
        )
        local = self.registry.known(self.identity.node_sid)
        if local is not None and local.certificate_expires != self.identity.not_after:
            await self.registry.change(local.sid, certificate_expires=self.identity.not_after)
        await self.intents.prune()
        await self.tokens.load()

    async def _health(self) -> Mapping[str, Any]:
        nodes = self.registry.nodes()
        return {
            "cluster_id": self.identity.cluster_id,
            "nodes": len(nodes),
            "unreachable": self.registry.unreachable(),
        }

    def _publish_node(self, node: Node) -> None:
        self.events.publish("node", msgspec.to_builtins(node))

    def _publish_vm(self, vm: Vm, gone: bool) -> None:
        dressed = self.registry.dress(as_deleted(vm) if gone else vm)
        self.events.publish("vm", {**msgspec.to_builtins(dressed), "deleted": gone})


class NodeMetrics(Collector):
    """``hero_nodes`` by state, ``hero_slices`` and ``hero_slices_free``."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Called for each scrape."""
        nodes = self._registry.nodes()
        by_state = GaugeMetricFamily("hero_nodes", "Nodes of the cluster", labels=["state"])
        for state in NodeState:
            by_state.add_metric([state.value], sum(node.state is state for node in nodes))
        capacities = [node.capacity for node in nodes if node.capacity is not None]
        yield by_state
        yield GaugeMetricFamily(
            "hero_slices", "Slices of the cluster", value=sum(c.slices for c in capacities)
        )
        yield GaugeMetricFamily(
            "hero_slices_free", "Free slices", value=sum(c.slices_free for c in capacities)
        )
