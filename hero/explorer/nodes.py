"""What the explorer knows of a node, and which heartbeats change it. Everything here is pure."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlsplit

import attrs

from hero.compute.model import Capacity
from hero.errors import Forbidden, InvalidConfiguration
from hero.explorer.errors import HeartbeatStale, NodeUnknown
from hero.explorer.model import Heartbeat, Node, NodeState
from hero.identity.addresses import host_of_url
from hero.identity.claims import LOCAL_USER, Caller

#: How many earlier starts of a node's compute service are remembered, to know late heartbeats.
PAST_BOOTS = 8


@attrs.frozen(kw_only=True)
class NodeRecord:
    """One node. ``vms_digest`` is the digest of the VM records that the index holds.

    ``advertise_address`` is ``https://host:port`` of its router, or ``unix:///path`` of the
    compute service's own socket for the explorer's own machine.
    """

    sid: str
    name: str
    advertise_address: str
    joined_at: datetime
    local: bool = False
    version: str = ""
    cordoned: bool = False
    removed_at: datetime | None = None
    last_seen: datetime | None = None
    boot_id: str | None = None
    past_boots: tuple[str, ...] = ()
    seq: int = 0
    capacity: Capacity | None = None
    load: float | None = None
    vms: int = 0
    vms_digest: str = ""
    certificate_expires: datetime | None = None


def state_of(record: NodeRecord, *, live: bool) -> NodeState:
    """The state of a node whose lease is *live* or not."""
    if record.removed_at is not None:
        return NodeState.REMOVED
    if record.last_seen is None:
        return NodeState.JOINING
    if not live:
        return NodeState.UNREACHABLE
    return NodeState.CORDONED if record.cordoned else NodeState.ONLINE


def describe(record: NodeRecord, *, live: bool) -> Node:
    """The node as it stands on the wire."""
    state = state_of(record, live=live)
    return Node(
        sid=record.sid,
        name=record.name,
        state=state,
        schedulable=state is NodeState.ONLINE,
        advertise_address=record.advertise_address,
        version=record.version,
        joined_at=record.joined_at,
        last_seen=record.last_seen,
        capacity=record.capacity,
        load=record.load,
        vms=record.vms,
        certificate_expires=record.certificate_expires,
        local=record.local,
    )


def check_sender(caller: Caller, heartbeat: Heartbeat, *, local_sid: str) -> None:
    """Raise `Forbidden` unless *caller* is the node that *heartbeat* speaks of.

    The explorer's own machine reports by UNIX socket, where the caller is the local
    administrator.
    """
    if caller.node_sid == heartbeat.node_sid:
        return
    if caller.user == LOCAL_USER and heartbeat.node_sid == local_sid:
        return
    raise Forbidden(
        f"{caller.user} may not send heartbeats for {heartbeat.node_sid}",
        hint="a node reports with its own certificate, and about itself only",
    )


def accept(record: NodeRecord | None, heartbeat: Heartbeat, now: datetime) -> NodeRecord:
    """*record* after *heartbeat*, with the digest of its VMs unchanged.

    Raises `NodeUnknown` for a node that never joined or was removed, and `HeartbeatStale` for
    what is late or replayed: within one start of the sender (``boot_id``) the ``seq`` must grow,
    and a start that another has followed is over.
    """
    if record is None or record.removed_at is not None:
        raise NodeUnknown(
            f"{heartbeat.node_sid} is not a node of this cluster"
            + (" any more: it was removed" if record is not None else ""),
            hint="make a token with `hero token create` and run `hero join` on the machine",
        )
    if heartbeat.boot_id == record.boot_id:
        if heartbeat.seq <= record.seq:
            raise HeartbeatStale(
                f"heartbeat {heartbeat.seq} of {record.name} came after heartbeat {record.seq}"
            )
        past = record.past_boots
    elif heartbeat.boot_id in record.past_boots:
        raise HeartbeatStale(
            f"heartbeat {heartbeat.seq} of {record.name} is from a start of its compute service "
            "that another has followed",
            hint="where this keeps coming, two machines use the same node identity: join one anew",
        )
    elif record.boot_id is None:
        past = ()
    else:
        past = (*record.past_boots, record.boot_id)[-PAST_BOOTS:]
    return attrs.evolve(
        record,
        advertise_address=_address(record, heartbeat),
        version=heartbeat.version,
        last_seen=now,
        boot_id=heartbeat.boot_id,
        past_boots=past,
        seq=heartbeat.seq,
        capacity=heartbeat.capacity,
        load=heartbeat.load,
    )


def is_router_address(url: str) -> bool:
    """Whether *url* is how a router is reached: ``https://host`` or ``https://host:port``."""
    try:
        host_of_url(url)
        parts = urlsplit(url)
        return url.rstrip("/") == f"https://{parts.netloc}" and "@" not in url and parts.port != 0
    except (ValueError, InvalidConfiguration):
        return False


def _address(record: NodeRecord, heartbeat: Heartbeat) -> str:
    """Where the node is reached: by https only, unless it is the explorer's own machine."""
    if record.local or not is_router_address(heartbeat.advertise_address):
        return record.advertise_address
    return heartbeat.advertise_address
