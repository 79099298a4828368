"""The clients through which nodes are called, kept for the next call."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from hero.explorer.nodes import NodeRecord
from hero.identity.tls import ClusterTlsPolicy
from hero.rpc.client import RpcClient
from hero.rpc.urls import router_url, unix_url

#: Clients that are kept; the one used longest ago goes first.
_KEPT = 4096

_UNIX = "unix://"


class Connections:
    """Makes clients: by UNIX socket for this machine, else through the node's router.

    Through a router the node must show its own certificate, and is shown that in *tls_dir*.
    """

    def __init__(self, reactor: Any, tls_dir: Path, kept: int = _KEPT) -> None:
        self._reactor = reactor
        self._policy = ClusterTlsPolicy(tls_dir)
        self._kept = kept
        self._clients: OrderedDict[tuple[str, str, str], RpcClient] = OrderedDict()

    def __call__(self, node: NodeRecord, context: str) -> RpcClient:
        """The client for *node*'s compute service, about *context*."""
        key = (node.sid, node.advertise_address, context)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = self._make(node, context)
            if len(self._clients) > self._kept:
                _, oldest = self._clients.popitem(last=False)
                Deferred.fromCoroutine(oldest.close())
        self._clients.move_to_end(key)
        return client

    async def close(self) -> None:
        """Close every connection that is not in use."""
        clients, self._clients = self._clients, OrderedDict()
        await gatherResults([Deferred.fromCoroutine(c.close()) for c in clients.values()])

    def _make(self, node: NodeRecord, context: str) -> RpcClient:
        address = node.advertise_address
        if address.startswith(_UNIX):
            path = Path(address.removeprefix(_UNIX))
            return RpcClient(self._reactor, unix_url(path, context, "cloud"))
        return RpcClient(
            self._reactor,
            router_url(address, "hero_compute/rpc", context, "cloud"),
            tls=self._policy.expecting(role="node", sid=node.sid),
        )
