"""Whether a node's services answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hero.cli.instance import router_urls
from hero.paths import HeroPaths

_HEALTH_TIMEOUT = 5.0


def socket_of(process: str, paths: HeroPaths) -> Path:
    """The socket on which *process* answers."""
    return {
        "router": paths.router_socket,
        "compute": paths.compute_socket,
        "explorer": paths.explorer_socket,
        "ui": paths.ui_socket,
    }[process]


async def health_of(reactor: Any, path: Path) -> dict[str, Any] | None:
    """What the service on the socket *path* says to ``GET /health``; None without an answer.

    ``status`` is ``ok`` where it is well; ``problems``, if any, are sentences.
    """
    import json

    from twisted.internet.defer import CancelledError
    from twisted.internet.defer import TimeoutError as DeferredTimeout
    from twisted.internet.error import ConnectError
    from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, readBody

    from hero.rpc.endpoints import ServiceEndpointFactory

    pool = HTTPConnectionPool(reactor, persistent=False)
    agent = Agent.usingEndpointFactory(
        reactor, ServiceEndpointFactory(reactor, path, None, _HEALTH_TIMEOUT), pool=pool
    )
    request = agent.request(b"GET", b"http://localhost/health")
    request.addTimeout(_HEALTH_TIMEOUT, reactor)
    try:
        response = await request
        body = await readBody(response).addTimeout(_HEALTH_TIMEOUT, reactor)
        said = json.loads(body)
    except (ConnectError, ResponseFailed, DeferredTimeout, CancelledError, OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


async def is_healthy(reactor: Any, path: Path) -> bool:
    """Whether the service on the socket *path* says that it is well."""
    health = await health_of(reactor, path)
    return health is not None and health.get("status") == "ok"


async def what_is_missing(reactor: Any, paths: HeroPaths, processes: tuple[str, ...]) -> list[str]:
    """The processes that are not ready yet, by name.

    The router is when it listens, too; compute, when the explorer beside it has heard of it.
    """
    missing = []
    for process in processes:
        path = socket_of(process, paths)
        listening = process != "router" or router_urls(paths)
        if not (listening and path.is_socket() and await is_healthy(reactor, path)):
            missing.append(process)
    if not missing and "explorer" in processes and not await _has_a_node(reactor, paths):
        missing.append("compute")
    return missing


async def _has_a_node(reactor: Any, paths: HeroPaths) -> bool:
    """Whether the explorer has heard from a compute service, and can place VMs."""
    from hero.errors import HeroError
    from hero.explorer.api import ExplorerService
    from hero.rpc.client import RpcClient
    from hero.rpc.urls import unix_url

    client = RpcClient(reactor, unix_url(paths.explorer_socket, "root", "explorer"))
    try:
        status = await client.proxy(ExplorerService).cluster_status(timeout=_HEALTH_TIMEOUT)
    except HeroError:
        return False
    finally:
        await client.close()
    return bool(status.nodes_online)
