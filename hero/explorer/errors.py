"""What can go wrong in a cluster, as a caller sees it."""

from __future__ import annotations

from hero.errors import HeroError


class NodeUnknown(HeroError):
    """The cluster has no such node: it never joined, or it was removed. It can join again."""

    kind = "node_unknown"
    code = -32050


class NodeUnreachable(HeroError):
    """The node that would do this does not answer. Nothing is known of it until it does."""

    kind = "node_unreachable"
    code = -32051


class HeartbeatStale(HeroError):
    """The heartbeat came late or twice; a newer one of the same node was accepted before it."""

    kind = "heartbeat_stale"
    code = -32052


class NoCapacity(HeroError):
    """No node can take the VM now. ``data.candidates`` says why, node by node."""

    kind = "no_capacity"
    code = -32053
