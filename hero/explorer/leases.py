"""How long silence is believed: a node is reachable while its lease runs.

Each accepted heartbeat renews the lease of its own node and of no other. Time here is monotonic,
in seconds; a change of the wall clock ends no lease.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Pace:
    """How often nodes are asked to report.

    ``interval`` holds for small clusters. A large one is slowed down so that all its nodes
    together send no more than ``per_second`` heartbeats.
    """

    interval: float = 5.0
    per_second: float = 200.0
    lease_intervals: float = 2.5

    def interval_for(self, nodes: int) -> float:
        """Seconds between the heartbeats of one node in a cluster of *nodes*."""
        return max(self.interval, nodes / self.per_second)

    def lease_for(self, nodes: int) -> float:
        """Seconds of silence after which a node counts as unreachable."""
        return self.interval_for(nodes) * self.lease_intervals


class Leases:
    """Until when each node is believed to be there."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def renew(self, node_sid: str, now: float, lease: float) -> None:
        """Believe the node for *lease* seconds from *now*; a lease is never made shorter."""
        self._until[node_sid] = max(self._until.get(node_sid, 0.0), now + lease)

    def end(self, node_sid: str) -> None:
        """Stop believing the node, which was removed."""
        self._until.pop(node_sid, None)

    def holds(self, node_sid: str, now: float) -> bool:
        """Whether the node's lease runs at *now*."""
        return self._until.get(node_sid, 0.0) > now
