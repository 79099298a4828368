"""A whole explorer, with nodes that are fakes, for tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from hero.compute.api import ComputeService
from hero.errors import HeroError
from hero.explorer.api import ExplorerService
from hero.explorer.daemon import ExplorerDaemon
from hero.explorer.joining import Advertised
from hero.explorer.leases import Pace
from hero.explorer.model import HeartbeatReply
from hero.explorer.node_proxy import Patience
from hero.paths import HeroPaths
from hero.rpc.client import RpcClient
from hero.rpc.urls import unix_url
from tests.explorer.builders import NOON, a_database, a_record, later, temporary_directory
from tests.explorer.fake_node import FakeNode

IMPATIENT = Patience(answer=2.0, submit=0.2, follow=0.3, whole=20.0, poll=0.2, pause=0.05)


class FakeCluster:
    """An explorer whose time of day stands still until `pass_time` moves it.

    Its calls, and the nodes', go through real sockets.
    """

    def __init__(self, test: TestCase, *, mode: str = "master") -> None:
        self._test = test
        self._mode = mode
        self.seconds = 0.0
        self.home: Path = temporary_directory(test)
        self.paths = HeroPaths(home=self.home, sockets=self.home / "s")
        self.paths.ensure()
        self.nodes: dict[int, FakeNode] = {}
        self.errors: list[HeroError] = []
        self.daemon = self._make()

    def _make(self) -> ExplorerDaemon:
        return ExplorerDaemon(
            reactor,
            self.paths,
            mode=self._mode,
            advertised=Advertised("https://10.0.0.1:9998", list, list),
            pace=Pace(interval=5.0),
            fatal=self.errors.append,
            patience=IMPATIENT,
            monotonic=lambda: self.seconds,
            now=lambda: later(self.seconds),
        )

    async def start(self) -> None:
        """Start the explorer, and stop it after the test."""
        self.daemon.startService()
        assert self.daemon.started is not None
        await self.daemon.started
        self._test.assertEqual(self.errors, [])
        self._test.addCleanup(self.stop)

    async def stop(self) -> None:
        """Stop the explorer, if it runs."""
        if self.daemon.running:
            await self.daemon.stopService()

    async def restart(self) -> None:
        """Stop the explorer and start another in its place."""
        await self.stop()
        self.daemon = self._make()
        await self.start()

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass for leases and lifetimes."""
        self.seconds += seconds
        self.daemon.registry.tick()

    async def add_node(self, number: int, slices: int = 4) -> FakeNode:
        """Let a node join, listen and report."""
        node = FakeNode(number, self.home, a_database(self._test), slices)
        node.start()
        self._test.addCleanup(node.stop)
        self.nodes[number] = node
        await self.daemon.registry.add(
            a_record(number, advertise_address=f"unix://{node.socket}", joined_at=NOON)
        )
        await self.report(node)
        return node

    async def report(self, node: FakeNode, **options: Any) -> HeartbeatReply:
        """Send a heartbeat of *node*."""
        options.setdefault("sent_at", self.seconds + node.seq / 1000)
        return await self.beat(node, node.heartbeat(**options))

    async def beat(self, node: FakeNode, heartbeat: Any, **params: Any) -> HeartbeatReply:
        """Send *heartbeat* with the identity of *node*."""
        headers = {"X-Hero-User": f"node:{node.sid}", "X-Hero-Claims": "node"}
        reply: HeartbeatReply = await self.explorer(headers).heartbeat(
            heartbeat=heartbeat, **params
        )
        return reply

    def explorer(self, headers: dict[str, str] | None = None) -> Any:
        """A client of ExplorerService."""
        return self._client("explorer", headers).proxy(ExplorerService)

    def cloud(self, headers: dict[str, str] | None = None, context: str = "root") -> Any:
        """A client of the cluster's ComputeService."""
        return self._client("cloud", headers, context).proxy(ComputeService)

    def _client(
        self, kind: str, headers: dict[str, str] | None, context: str = "root"
    ) -> RpcClient:
        url = unix_url(self.paths.explorer_socket, context, kind)
        client = RpcClient(reactor, url, headers=headers)
        self._test.addCleanup(lambda: Deferred.fromCoroutine(client.close()))
        return client


async def eventually(condition: Callable[[], Any | Awaitable[Any]], patience: float = 10.0) -> Any:
    """Wait until *condition* gives something true, and return that."""
    turns = int(patience / 0.02)
    for _ in range(turns):
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        await deferLater(reactor, 0.02)  # type: ignore[arg-type]
    raise AssertionError(f"{condition} stayed false")
