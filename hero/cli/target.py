"""Which service a command speaks to.

A router named by ``--url`` (or ``HERO_URL``) where there is one; else this machine's explorer, by
its socket; else this machine's compute service.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from hero.cli.output import warn
from hero.cli.session import Session
from hero.cli.startup import MODE
from hero.compute.api import ComputeService
from hero.errors import InvalidConfiguration, Unavailable
from hero.explorer.api import ExplorerService
from hero.router.api import RouterService
from hero.rpc.client import RpcClient
from hero.rpc.urls import router_url, unix_url

_EXPLORER = "hero_compute/explorer_rpc"
_ROUTER = "hero_router/rpc"


@attrs.define(kw_only=True)
class Services:
    """Client proxies for the services in reach. ``where`` says which, for messages.

    ``cluster`` is true where an explorer answers.
    """

    reactor: Any
    where: str
    cluster: bool
    _urls: dict[str, str]
    _connect: Any

    @functools.cached_property
    def compute(self) -> Any:
        """The `ComputeService` of the cluster, or of this machine. Raises `Unavailable`."""
        url = self._urls.get("cloud")
        if url is None:
            raise Unavailable(
                f"only {self.where} runs here, no compute service",
                hint="start one with hero up, or name another machine's router with --url",
            )
        return self._connect(url).proxy(ComputeService)

    @property
    def explorer(self) -> Any:
        """The cluster's `ExplorerService`. Raises `Unavailable` where none is in reach."""
        url = self._urls.get("explorer")
        if url is None:
            raise Unavailable(
                f"this needs an explorer, and {self.where} is not one",
                hint="run it on a master, or name one with --url https://host:port; tokens for the "
                "router of this machine alone are made with --local",
            )
        return self._connect(url).proxy(ExplorerService)

    @property
    def router(self) -> Any:
        """The `RouterService` of the router named, or of this machine's."""
        return self._connect(self._urls["router"]).proxy(RouterService)


@contextlib.asynccontextmanager
async def open_services(session: Session, reactor: Any) -> AsyncIterator[Services]:
    """The services that *session*'s options and this machine's sockets lead to."""
    clients: list[RpcClient] = []
    if session.url:
        from hero.cli.remote import remote_options

        base, options = await remote_options(session, reactor)
        urls = {
            "cloud": router_url(base, _EXPLORER, session.context, "cloud"),
            "explorer": router_url(base, _EXPLORER, session.context, "explorer"),
            "router": router_url(base, _ROUTER, session.context, "router"),
        }
        where, cluster = base, True
    else:
        urls, where, cluster = _local_urls(session)
        options = {}

    def connect(url: str) -> RpcClient:
        client = RpcClient(reactor, url, **options)
        clients.append(client)
        return client

    try:
        yield Services(
            reactor=reactor,
            where=where,
            cluster=cluster,
            urls=urls,
            connect=connect,
        )
    finally:
        for client in clients:
            await client.close()


def _local_urls(session: Session) -> tuple[dict[str, str], str, bool]:
    paths = session.paths
    urls = {"router": unix_url(paths.router_socket, session.context, "router")}
    if answers(paths.explorer_socket):
        urls["cloud"] = unix_url(paths.explorer_socket, session.context, "cloud")
        urls["explorer"] = unix_url(paths.explorer_socket, session.context, "explorer")
        return urls, "this machine's explorer", True
    if answers(paths.compute_socket):
        if session.settings.get(MODE) in ("local", "master"):
            warn(
                "the explorer of this machine does not answer, its compute service does: "
                "other nodes are left out; hero status shows more"
            )
        urls["cloud"] = unix_url(paths.compute_socket, session.context, "cloud")
        return urls, "this machine's compute service", False
    if answers(paths.router_socket):
        return urls, "this machine's router", False
    raise Unavailable(
        f"no Hero service is running here (no socket answers in {paths.sockets})",
        hint="start one with hero up, or name another machine's router with --url",
    )


def answers(path: Path) -> bool:
    """Whether somebody listens on the UNIX socket *path*."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def base_url(text: str) -> str:
    """The router's base URL in *text*: ``https://host:port``. Raises `InvalidConfiguration`."""
    parts = urlsplit(text if "//" in text else f"https://{text}")
    try:
        valid = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid or parts.scheme not in ("https", "http") or parts.path not in ("", "/"):
        raise InvalidConfiguration(
            f"{text!r} is not a router's URL", hint="write it as https://host or https://host:9998"
        )
    return f"{parts.scheme}://{parts.netloc}"


def read_token(session: Session) -> str | None:
    """The bearer token that *session* was given, in whichever way."""
    if session.token_file == "-":
        return sys.stdin.readline().strip() or None
    if session.token_file:
        return Path(session.token_file).read_text().strip() or None
    return session.token
