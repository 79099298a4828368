"""The values that ExplorerService speaks of, as they stand on the wire."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated

import attrs
from msgspec import Meta

from hero.compute.model import Capacity, Vm

NodeSid = Annotated[str, Meta(pattern=r"^node-[0-9a-z]{10}\Z")]


class NodeState(enum.StrEnum):
    """Where a node is in its life, as the explorer sees it."""

    JOINING = "joining"
    ONLINE = "online"
    UNREACHABLE = "unreachable"
    CORDONED = "cordoned"
    DRAINING = "draining"
    DRAINED = "drained"
    REMOVED = "removed"


@attrs.frozen(kw_only=True)
class Node:
    """A node of the cluster. ``last_seen`` is when its last heartbeat came.

    ``schedulable`` says whether new VMs may be placed on it. ``local`` is true for the explorer's
    own machine, which it reaches by UNIX socket.
    """

    sid: str
    name: str
    state: NodeState
    schedulable: bool
    advertise_address: str
    version: str
    joined_at: datetime
    last_seen: datetime | None = None
    capacity: Capacity | None = None
    load: float | None = None
    vms: int = 0
    certificate_expires: datetime | None = None
    local: bool = False


@attrs.frozen(kw_only=True)
class NodePage:
    """The nodes, in order of name."""

    items: list[Node]


@attrs.frozen(kw_only=True)
class Heartbeat:
    """What a node says of itself.

    ``boot_id`` is new at each start of the compute service; ``seq`` counts up from 1 within it.
    ``vms_digest`` is the SHA-256 over the node's VM records; ``vms`` carries those records when
    the explorer has asked for them, or the digest has changed since the last accepted heartbeat.
    """

    node_sid: NodeSid
    boot_id: Annotated[str, Meta(min_length=8, max_length=64)]
    seq: Annotated[int, Meta(ge=1, lt=1 << 31)]
    sent_at: Annotated[datetime, Meta(tz=True)]
    advertise_address: Annotated[str, Meta(max_length=512)]
    name: Annotated[str, Meta(min_length=1, max_length=253)]
    version: Annotated[str, Meta(max_length=64)]
    capacity: Capacity
    load: float
    vms_digest: Annotated[str, Meta(max_length=64)]
    vms: list[Vm] | None = None


@attrs.frozen(kw_only=True)
class TokenRecord:
    """A bearer token as a node's router knows it: by the SHA-256 of its secret, in hex."""

    sid: str
    hash: str
    user: str
    claims: str
    context: str
    expires_at: datetime | None = None


@attrs.frozen(kw_only=True)
class HeartbeatReply:
    """What the explorer answers.

    ``interval`` is seconds until the next heartbeat is wanted. ``send_vms`` asks for the VM
    records with it. ``tokens`` is the whole list of accepted bearer tokens, sent when
    ``tokens_digest`` differs from the one that the node named last.
    """

    interval: float
    send_vms: bool = False
    state: NodeState = NodeState.ONLINE
    tokens: list[TokenRecord] | None = None
    explorer_addresses: list[str] | None = None


@attrs.frozen(kw_only=True)
class JoinToken:
    """A join token. ``token`` is the string for ``hero join``, shown this once."""

    sid: str
    token: str
    expires_at: datetime


@attrs.frozen(kw_only=True)
class Membership:
    """What a node gets when it joins: its name in the cluster, and its certificate (PEM)."""

    node_sid: str
    cluster_id: str
    certificate: str
    ca: str
    explorer_addresses: list[str]
    heartbeat_interval: float


@attrs.frozen(kw_only=True)
class Certificate:
    """A renewed certificate (PEM) with the CA certificates to trust (PEM)."""

    certificate: str
    ca: str
    expires_at: datetime


@attrs.frozen(kw_only=True)
class ApiToken:
    """A bearer token. ``token`` is the secret itself, shown when the token is made, never again."""

    sid: str
    user: str
    claims: str
    context: str
    created_at: datetime
    expires_at: datetime | None = None
    token: str | None = None


@attrs.frozen(kw_only=True)
class ApiTokenPage:
    """Bearer tokens, without their secrets."""

    items: list[ApiToken]


@attrs.frozen(kw_only=True)
class ClusterStatus:
    """The cluster at a glance. ``unreachable`` lists the names of nodes that do not answer.

    ``slices`` are those of all nodes, ``slices_free`` those on nodes that take new VMs.
    """

    cluster_id: str
    version: str
    mode: str
    nodes: int
    nodes_online: int
    unreachable: list[str]
    vms: int
    vms_running: int
    slices: int
    slices_free: int
    heartbeat_interval: float
    explorer_addresses: list[str]


@attrs.frozen(kw_only=True)
class Candidate:
    """One node, as placement judged it: refused for ``reasons``, or given a ``score``."""

    node_sid: str
    name: str
    fits: bool
    score: float = 0.0
    reasons: list[str] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class PlacementExplanation:
    """How placement would decide now; ``candidates`` are in the order they would be tried."""

    chosen: str | None
    candidates: list[Candidate]


@attrs.frozen(kw_only=True)
class LoginCode:
    """A one-time code that a browser trades for a session. Valid for ``expires_in`` seconds."""

    code: str
    expires_in: float


@attrs.frozen(kw_only=True)
class Session:
    """A browser's session: the identity behind it, and the secret for its cookie."""

    secret: str
    user: str
    claims: str
    context: str
    expires_at: datetime
