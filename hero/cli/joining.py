"""How a machine becomes a node: pin the CA, ask for a certificate, install it, keep the settings.

Each step can be repeated. The key is made once and kept until its certificate is installed; the
explorer answers the same token with the same key again; files are replaced in one step.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import attrs

from hero.cli.instance import running_pid
from hero.cli.remote import DEFAULT_PORT
from hero.cli.startup import (
    ADVERTISE,
    EXPLORERS,
    MODE,
    SOCKETS,
    check_advertise_address,
    default_advertise_address,
)
from hero.errors import Conflict, HeroError, Timeout, Unavailable
from hero.explorer.api import ExplorerService
from hero.explorer.model import Membership
from hero.identity.certificates import EXPLORER
from hero.identity.errors import CaMismatch, CertificateRefused, NoIdentity, PeerRefused
from hero.identity.join_token import JoinTokenString
from hero.identity.node import NodeIdentity, install_certificate, make_key_and_csr
from hero.identity.pinning import fetch_ca
from hero.identity.tls import ClusterTlsPolicy
from hero.paths import HeroPaths
from hero.rpc.client import RpcClient
from hero.rpc.urls import router_url
from hero.settings import effective_environment, write_env_file

_JOIN_TIMEOUT = 30.0


@attrs.frozen(kw_only=True)
class Joined:
    """This machine is a node. ``repeated`` says that it was one already."""

    node_sid: str
    cluster_id: str
    name: str
    advertise_address: str
    explorer_addresses: list[str]
    repeated: bool


async def join_cluster(
    reactor: Any,
    environ: Mapping[str, str],
    token_text: str,
    *,
    name: str | None = None,
    advertise_address: str | None = None,
    listen: Sequence[str] = (),
    say: Callable[[str], None],
) -> Joined:
    """Join the cluster that the token names, and write ``hero.env``. Raises `HeroError`."""
    token = JoinTokenString.parse(token_text)
    settings = effective_environment(environ)
    paths = HeroPaths.from_environment(settings)
    paths.ensure()
    member = _member_of(paths, token)
    kept_address = settings.get(ADVERTISE) if member else None
    if member is not None and await _was_removed(reactor, token, member):
        say(f"the cluster has removed {member.node_sid}; this machine joins as a new node")
        member = None
    if member is None and running_pid(paths) is not None:
        raise Conflict(
            "Hero is running here and is not a member of that cluster",
            hint="stop it first with hero down",
        )
    endpoints = list(listen) or (settings.get("HERO_LISTEN") or "").split()
    first_host = urlsplit(token.explorer_urls[0]).hostname or ""
    advertise = advertise_address or kept_address
    if not advertise:
        advertise = default_advertise_address("worker", endpoints, first_host)
    check_advertise_address(advertise)
    node_name = name or settings.get("HERO_NODE_NAME") or default_node_name()
    explorers = token.explorer_urls
    if member is None:
        say(f"joining as {node_name}, reached at {advertise}")
        membership = await _ask_to_join(reactor, paths, token, node_name, advertise, say)
        identity = install_certificate(
            paths.tls, membership.certificate, membership.ca, ca_sha256=token.ca_sha256
        )
        explorers = membership.explorer_addresses or explorers
    else:
        say("this machine is a node of that cluster already")
        identity = member
        if known := settings.get(EXPLORERS):
            explorers = known.split(",")
    kept = {
        MODE: "worker",
        EXPLORERS: ",".join(explorers),
        ADVERTISE: advertise,
        SOCKETS: str(paths.sockets),
        "HERO_NODE_NAME": node_name,
    }
    if endpoints:
        kept["HERO_LISTEN"] = " ".join(endpoints)
    write_env_file(paths.env_file, kept)
    return Joined(
        node_sid=identity.node_sid,
        cluster_id=identity.cluster_id,
        name=node_name,
        advertise_address=advertise,
        explorer_addresses=explorers,
        repeated=member is not None,
    )


def _member_of(paths: HeroPaths, token: JoinTokenString) -> NodeIdentity | None:
    """This machine's identity in the cluster of *token*; None where it has to join."""
    try:
        identity = NodeIdentity.load(paths.tls)
    except NoIdentity:
        return None
    if (paths.tls / "ca.key").exists():
        raise Conflict(
            f"{paths.home} belongs to the master of cluster {identity.cluster_id}",
            hint="join with another HERO_HOME, or remove that directory if nothing in it matters",
        )
    if identity.cluster_id != token.cluster_id:
        raise Conflict(
            f"{paths.home} belongs to a node of another cluster, {identity.cluster_id}",
            hint="join with another HERO_HOME, or remove that directory if nothing in it matters",
        )
    return identity


async def _ask_to_join(
    reactor: Any,
    paths: HeroPaths,
    token: JoinTokenString,
    name: str,
    advertise: str,
    say: Callable[[str], None],
) -> Membership:
    """The membership that the first explorer to answer grants."""
    csr = make_key_and_csr(paths.tls)
    problems: list[HeroError] = []
    for url in token.explorer_urls:
        try:
            return await _ask_one(reactor, url, token, csr, name, advertise)
        except (Unavailable, Timeout, CaMismatch, PeerRefused) as error:
            problems.append(error)
            say(f"{url}: {error.detail}")
    if len(problems) == 1:
        raise problems[0]
    if mismatches := [problem for problem in problems if isinstance(problem, CaMismatch)]:
        raise mismatches[0]
    raise Unavailable(
        f"none of the explorers in the token answers: {', '.join(token.explorer_urls)}",
        hint="check that the master runs (hero status there) and that this machine reaches it",
        data={"problems": [problem.to_data() for problem in problems]},
    )


async def _ask_one(
    reactor: Any, url: str, token: JoinTokenString, csr: str, name: str, advertise: str
) -> Membership:
    client = await _client(reactor, url, token)
    try:
        answer: Membership = await client.proxy(ExplorerService).join(
            cluster_id=token.cluster_id,
            secret=token.secret.reveal(),
            csr=csr,
            name=name,
            advertise_address=advertise,
        )
        return answer
    finally:
        await client.close()


async def _was_removed(reactor: Any, token: JoinTokenString, member: NodeIdentity) -> bool:
    """Whether an explorer of the cluster says that it knows this machine's node no more.

    Where none answers, the machine is taken for the node that it was.
    """
    for url in token.explorer_urls:
        try:
            client = await _client(reactor, url, token)
            try:
                await client.proxy(ExplorerService).renew_certificate(
                    certificate=member.certificate_pem, csr=member.renewal_request()
                )
            finally:
                await client.close()
            return False
        except CertificateRefused:
            return True
        except HeroError:
            continue
    return False


async def _client(reactor: Any, url: str, token: JoinTokenString) -> RpcClient:
    """A client of the explorer at *url* that needs no identity, only the CA of *token*."""
    parts = urlsplit(url)
    ca = await fetch_ca(reactor, parts.hostname or "", parts.port or DEFAULT_PORT, token.ca_sha256)
    return RpcClient(
        reactor,
        router_url(url, "hero_compute/explorer_rpc", "root", "explorer"),
        tls=ClusterTlsPolicy(None, ca_pem=ca, expect_role=EXPLORER),
        timeout=_JOIN_TIMEOUT,
    )


def default_node_name() -> str:
    """The host name, made into what a node can be called."""
    plain = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:253].strip(".-")
    return plain or "node"
