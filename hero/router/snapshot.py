"""What a router process has counted, as one value that can be sent, added up and looked into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import Any

import attrs
import msgspec

from hero.router.model import PoolStats

#: Upper bounds of the buckets of latencies, in seconds. One more bucket has no bound.
BOUNDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


class Latency(msgspec.Struct):
    """How many took how long: a count for each of `BOUNDS` and one for beyond, and the sum."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def quantile(self, share: float) -> float:
        """The seconds within which *share* of all were done, of which there must be some.

        Within a bucket it is interpolated, as Prometheus does in ``histogram_quantile``; beyond
        the last bound it is that bound.
        """
        rank = share * sum(self.counts)
        below, lower = 0, 0.0
        for bound, count in zip(BOUNDS, self.counts, strict=False):
            if below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below, lower = below + count, bound
        return BOUNDS[-1]


class RouteCounts(msgspec.Struct):
    """Requests of one route that are done, by status, and what they took.

    ``first_byte`` is from sending a request to the service to the first byte of its answer;
    ``active`` are those under way, and ``pool`` the connections that they use.
    """

    responses: dict[int, int] = {}
    total: Latency = msgspec.field(default_factory=Latency)
    first_byte: Latency = msgspec.field(default_factory=Latency)
    bytes_in: int = 0
    bytes_out: int = 0
    active: int = 0
    pool: PoolStats | None = None

    @property
    def requests(self) -> int:
        """Requests that are done."""
        return sum(self.responses.values())

    @property
    def errors(self) -> int:
        """Those that ended in a server error, or without any answer."""
        return sum(count for status, count in self.responses.items() if not 0 < status < 500)


class Handshakes(msgspec.Struct):
    """TLS handshakes: ``completed`` in full, ``resumed``, ``failed`` by reason."""

    in_flight: int = 0
    completed: int = 0
    resumed: int = 0
    failed: dict[str, int] = {}


class RouterSnapshot(msgspec.Struct):
    """What a router process, or several, counted since the start.

    ``routes`` is by prefix; ``-`` are requests for none, ``other`` those that are too many to be
    told apart. ``gone`` has the counts of routes that are no longer, which no metric shows.
    ``connections`` and ``accepted`` are by protocol, ``states`` has routes by state.
    """

    routes: dict[str, RouteCounts] = {}
    gone: RouteCounts = msgspec.field(default_factory=RouteCounts)
    rejections: dict[str, int] = {}
    connections: dict[str, int] = {}
    accepted: dict[str, int] = {}
    streams: int = 0
    streams_opened: int = 0
    handshakes: Handshakes = msgspec.field(default_factory=Handshakes)
    states: dict[str, int] = {}
    lines_lost: int = 0
    workers: int = 1

    @property
    def everything(self) -> RouteCounts:
        """The counts of all routes that there are or were, together."""
        counts: RouteCounts = _sum([*self.routes.values(), self.gone])
        return counts


def merge(snapshots: Sequence[RouterSnapshot]) -> RouterSnapshot:
    """The counts of all *snapshots* together.

    Each process discovers all routes on its own, so ``states`` are not added up.
    """
    if len(snapshots) < 2:
        return snapshots[0] if snapshots else RouterSnapshot(workers=0)
    merged: RouterSnapshot = _sum(snapshots)
    merged.states = {
        state: max(snapshot.states.get(state, 0) for snapshot in snapshots)
        for state in merged.states
    }
    return merged


def as_past(snapshot: RouterSnapshot) -> RouterSnapshot:
    """What remains of *snapshot* when its process is no more: what it counted, and nothing that
    was so just then."""
    past = msgspec.json.decode(msgspec.json.encode(snapshot), type=RouterSnapshot)
    past.connections, past.states, past.streams, past.workers = {}, {}, 0, 0
    past.handshakes.in_flight = 0
    for counts in past.routes.values():
        counts.active = 0
        if counts.pool is not None:
            counts.pool = attrs.evolve(counts.pool, idle=0, busy=0, waiting=0, tunnels=0)
    return past


def keep_routes(snapshot: RouterSnapshot, prefixes: Set[str]) -> RouterSnapshot:
    """*snapshot* with routes other than those of *prefixes* among the ones that are gone."""
    gone = [counts for prefix, counts in snapshot.routes.items() if prefix not in prefixes]
    return msgspec.structs.replace(
        snapshot,
        routes={prefix: counts for prefix, counts in snapshot.routes.items() if prefix in prefixes},
        gone=_sum([snapshot.gone, *gone]),
    )


def add_pools(pools: Sequence[PoolStats]) -> PoolStats:
    """The figures of several pools together."""
    total: PoolStats = _sum(pools)
    return total


def _sum(values: Sequence[Any]) -> Any:
    """Counts by counts, member by member."""
    first = values[0]
    if isinstance(first, dict):
        keys = {key: None for value in values for key in value}
        return {key: _sum([value[key] for value in values if key in value]) for key in keys}
    if isinstance(first, list):
        return [sum(counts) for counts in zip(*values, strict=True)]
    names = _members(first)
    if names is None:
        return sum(values)
    members = {name: _known(getattr(value, name) for value in values) for name in names}
    return type(first)(**{name: _sum(known) for name, known in members.items() if known})


def _members(value: Any) -> Sequence[str] | None:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if attrs.has(type(value)):
        return [field.name for field in attrs.fields(type(value))]
    return None


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]
