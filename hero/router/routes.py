"""The route table: live data, which no request waits for and no connection depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hero.router.discovery import Found
from hero.router.model import Route, RouteState
from hero.router.proxy import ReverseProxyResource

#: A service's and a socket's name.
Key = tuple[str, str]


class RouteTable:
    """The routes by service and socket, and the entries that were refused.

    *make* makes the resource of a socket that was found.
    """

    def __init__(self, make: Callable[[Found], ReverseProxyResource]) -> None:
        self._make = make
        self._routes: dict[Key, ReverseProxyResource] = {}
        self._found: dict[Key, Found] = {}

    def lookup(self, service: str, socket: str) -> ReverseProxyResource | None:
        """The route, if there is one."""
        return self._routes.get((service, socket))

    def __iter__(self) -> Iterator[ReverseProxyResource]:
        return iter(list(self._routes.values()))

    def __len__(self) -> int:
        return len(self._routes)

    def count(self, state: RouteState) -> int:
        """How many routes are in *state*; refused entries count too."""
        if state is RouteState.REFUSED:
            return sum(found.refused is not None for found in self._found.values())
        return sum(route.state is state for route in self._routes.values())

    def update(self, found: Mapping[Key, Found]) -> None:
        """The socket directory now holds *found*.

        Requests under way on a route that goes are left to finish.
        """
        for key in self._routes.keys() - found.keys():
            self._drop(key)
        for key, entry in found.items():
            before = self._found.get(key)
            if entry.refused is not None:
                self._drop(key)
            elif before is None or before.identity != entry.identity or key not in self._routes:
                self._drop(key)
                resource = self._routes[key] = self._make(entry)
                resource.refresh()
        self._found = dict(found)

    def tend(self) -> None:
        """Close connections that nobody uses; ask again those who did not answer."""
        for route in self:
            route.pool.reap()

    def probe(self) -> None:
        """See whether somebody listens now where nobody did, or tells now what nobody told."""
        for route in self:
            if route.state is RouteState.DOWN or route.unclear:
                route.refresh()

    def describe(self) -> list[Route]:
        """Every entry of the socket directory, in order of prefix."""
        entries = [route.describe() for route in self]
        for (service, socket), found in self._found.items():
            if found.refused is not None:
                entries.append(_refused(service, socket, found))
        return sorted(entries, key=lambda route: route.prefix)

    def close(self) -> None:
        """Forget everything."""
        for key in list(self._routes):
            self._drop(key)
        self._found = {}

    def _drop(self, key: Key) -> None:
        route = self._routes.pop(key, None)
        if route is not None:
            route.pool.close()


def _refused(service: str, socket: str, found: Found) -> Route:
    return Route(
        service=service,
        socket=socket,
        prefix=f"/{service}/{socket}" if socket else f"/{service}",
        path=str(found.path),
        state=RouteState.REFUSED,
        access="cluster",
        reason=found.refused,
    )
