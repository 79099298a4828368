"""This node as a member of its cluster: what it reports, and what it does with the answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from hero.compute.heartbeat import Report
from hero.compute.model import NodeStatus, Vm
from hero.compute.view import digest_vms
from hero.errors import HeroError, InvalidConfiguration
from hero.explorer.api import ExplorerService
from hero.explorer.model import Heartbeat, HeartbeatReply, NodeState
from hero.identity.authority import utc_now
from hero.identity.files import write_atomically
from hero.identity.node import NodeIdentity, ensure_master_identity, install_certificate
from hero.identity.tls import ClusterTlsPolicy
from hero.identity.tokens import TokenFile, records_digest
from hero.paths import HeroPaths
from hero.rpc.client import RpcClient
from hero.rpc.urls import router_url, unix_url

#: Seconds between two looks at how old the certificate is.
_RENEWAL_CHECK = 60.0


def connect(reactor: Any, address: str, tls_dir: Path) -> Any:
    """The explorer at *address*: a router's ``https://host:port``, or ``unix:///path.sock``."""
    if address.startswith("unix://"):
        url = unix_url(Path(address.removeprefix("unix://")), "root", "explorer")
        return RpcClient(reactor, url).proxy(ExplorerService)
    if not address.startswith("https://"):
        raise InvalidConfiguration(
            f"{address!r} is not the address of an explorer",
            hint="EXPLORER_ADDRESSES holds https://host:port or unix:///path/to.sock, by commas",
        )
    url = router_url(address, "hero_compute/explorer_rpc", "root", "explorer")
    tls = ClusterTlsPolicy(tls_dir, expect_role="explorer")
    return RpcClient(reactor, url, tls=tls).proxy(ExplorerService)


class Membership:
    """What goes into this node's heartbeats, and what is done with the answers.

    *status* and *vms* tell of the node. The bearer tokens in an answer are kept in the file of
    *tokens*, for the router; where the explorer runs on this machine, *tokens* is None and it does
    that itself. *state_file* gets the node's state as the explorer sees it, for other programs.
    """

    def __init__(
        self,
        *,
        status: Callable[[], Awaitable[NodeStatus]],
        vms: Callable[[], Awaitable[list[Vm]]],
        advertise_address: Callable[[], str],
        tokens: TokenFile | None,
        state_file: Path,
    ) -> None:
        self._status = status
        self._vms = vms
        self._advertise_address = advertise_address
        self._tokens = tokens
        self._state_file = state_file
        self._state: NodeState | None = None

    async def report(self, seq: int) -> Report:
        """The heartbeat with the number *seq*."""
        status = await self._status()
        vms = await self._vms()
        return Report(
            Heartbeat(
                node_sid=status.node_sid,
                boot_id=status.boot_id,
                seq=seq,
                sent_at=utc_now(),
                advertise_address=self._advertise_address(),
                name=status.name,
                version=status.version,
                capacity=status.capacity,
                load=status.load,
                vms_digest=digest_vms(vms),
                vms=vms,
            ),
            self._tokens.digest() if self._tokens is not None else records_digest([]),
        )

    async def accept(self, reply: HeartbeatReply) -> None:
        """Act on an answer."""
        if reply.tokens is not None and self._tokens is not None:
            self._tokens.write(reply.tokens)
        if reply.state is not self._state:
            content = msgspec.json.encode({"state": reply.state, "since": utc_now()})
            write_atomically(self._state_file, content)
            self._state = reply.state


class CertificateKeeper(TimerService):
    """Has the node's certificate renewed at two thirds of its life.

    *explorers* are asked in turn; where this machine holds the authority itself, they are not
    needed. *in_thread* runs what waits for the disk.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        paths: HeroPaths,
        explorers: Sequence[Any],
        in_thread: Callable[..., Deferred[Any]],
    ) -> None:
        self._paths = paths
        self._explorers = explorers
        self._in_thread = in_thread
        self.problem: str | None = None
        super().__init__(_RENEWAL_CHECK, self._check)  # type: ignore[no-untyped-call]
        self.clock = clock

    def _check(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._renew_if_due()).addErrback(
            lambda failure: self._log.failure("the certificate could not be looked at", failure)
        )

    async def _renew_if_due(self) -> None:
        identity = await self._in_thread(NodeIdentity.load, self._paths.tls)
        if not identity.renewal_due(utc_now()):
            self.problem = None
            return
        if (self._paths.tls / "ca.key").exists():
            await self._in_thread(ensure_master_identity, self._paths, identity.addresses)
            self._log.info("certificate renewed")
            return
        for explorer in self._explorers:
            try:
                renewed = await explorer.renew_certificate(
                    certificate=identity.certificate_pem, csr=identity.renewal_request()
                )
                await self._in_thread(
                    install_certificate, self._paths.tls, renewed.certificate, renewed.ca
                )
            except HeroError as error:
                self.problem = f"the certificate was not renewed: {error.detail}"
                self._log.warn("{problem}", problem=self.problem)
            else:
                self.problem = None
                self._log.info("certificate renewed until {until}", until=renewed.expires_at)
                return


def advertised_address(configured: str | None, run_dir: Path, default_host: str) -> str:
    """The URL of this node's router, for others.

    *configured* may be a URL or a host. The port is the one that the router on this machine has
    written down to listen on.
    """
    if configured and "://" in configured:
        return configured.rstrip("/")
    host = configured or default_host
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"https://{host}:{_router_port(run_dir)}"


def _router_port(run_dir: Path) -> int:
    try:
        listening = msgspec.json.decode((run_dir / "router.json").read_bytes())["listening"]
        return int(str(listening[0]).rstrip("/").rpartition(":")[2])
    except (OSError, msgspec.DecodeError, LookupError, TypeError, ValueError):
        return 443
