"""What happened to routes between two looks at them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from hero.router.model import Route, RouterStats, RouteState, RouteStats


@attrs.frozen
class Change:
    """What happened to a route.

    ``event`` is ``appeared``, ``vanished``, ``replaced`` (by another socket of the same name), the
    state that it is in now (``up``, ``down``, ``refused``), or ``changed`` where who may call, or
    why it is in its state, did. ``route`` is how it is now, or was at last.
    """

    event: str
    route: Route


def by_prefix(routes: Sequence[Route]) -> dict[str, Route]:
    """*routes* by what tells them apart: an entry that is refused may lack a socket's name."""
    return {f"{route.prefix} {route.path}": route for route in routes}


def changes(before: Mapping[str, Route], after: Mapping[str, Route]) -> list[Change]:
    """What happened between *before* and *after*, which `by_prefix` made."""
    found = [Change("vanished", before[key]) for key in sorted(before.keys() - after.keys())]
    for key, route in sorted(after.items()):
        event = _event(before.get(key), route)
        if event is not None:
            found.append(Change(event, route))
    return found


def _event(before: Route | None, after: Route) -> str | None:
    if before is None:
        return "appeared"
    if before.state is not after.state and RouteState.REFUSED in (before.state, after.state):
        return str(after.state)
    if before.discovered_at != after.discovered_at:
        return "replaced"
    if before.state is not after.state:
        return str(after.state)
    if (before.access, before.reason) != (after.access, after.reason):
        return "changed"
    return None


def rates(before: RouterStats | None, after: RouterStats) -> dict[str, float]:
    """Requests per second, by prefix, between two answers of the same router.

    Without the first, or where the router was started anew since, they are since its start.
    """
    if before is None or before.started_at != after.started_at:
        earlier: dict[str, RouteStats] = {}
        seconds = after.uptime
    else:
        earlier = {route.prefix: route for route in before.per_route}
        seconds = after.uptime - before.uptime
    found = {}
    for route in after.per_route:
        known = earlier.get(route.prefix)
        count = route.requests - (known.requests if known is not None else 0)
        # A route that was forgotten and came back counts from the beginning.
        found[route.prefix] = max(count, 0) / seconds if seconds > 0 else 0.0
    return found
