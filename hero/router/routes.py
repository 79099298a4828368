"""The route table: live data, which no request waits for and no connection depends on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from hero.router.entries import Found, Key
from hero.router.model import Route, RouteState
from hero.router.proxy import ReverseProxyResource

#: Manifests that are read at one time, when many sockets appear together.
_READING = 32


class RouteTable:
    """The routes by service and socket, and the entries that were refused.

    *make* makes the resource of a socket that was found. *soon* calls what it is given when others
    have had their turn.
    """

    def __init__(
        self,
        make: Callable[[Found], ReverseProxyResource],
        soon: Callable[[Callable[[], None]], object] = lambda work: work(),
    ) -> None:
        self._make = make
        self._soon = soon
        self._routes: dict[Key, ReverseProxyResource] = {}
        self._found: dict[Key, Found] = {}
        self._unread: deque[ReverseProxyResource] = deque()
        self._reading = 0
        self._planned = False

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

    def update(self, found: Mapping[Key, Found], changed: Iterable[Key] | None = None) -> None:
        """The socket directory now holds *found*, of which only *changed* is news.

        Requests under way on a route that goes are left to finish.
        """
        if changed is None:
            changed = self._found.keys() | found.keys()
        for key in changed:
            before, entry = self._found.get(key), found.get(key)
            if before == entry:
                continue
            self._drop(key)
            if entry is None:
                del self._found[key]
                continue
            self._found[key] = entry
            if entry.refused is None:
                self._routes[key] = self._make(entry)
                self._unread.append(self._routes[key])
        self._read_soon()

    def _read(self) -> None:
        """Have routes read their manifests, not all at once. A request does not wait for this."""
        self._planned = False
        room = _READING - self._reading
        while self._unread and room > 0:
            room -= 1
            route = self._unread.popleft()
            if self._routes.get((route.service, route.socket)) is route:
                self._reading += 1
                route.when_known(self._was_read)
        self._read_soon()

    def _was_read(self) -> None:
        self._reading -= 1
        self._read_soon()

    def _read_soon(self) -> None:
        if self._unread and self._reading < _READING and not self._planned:
            self._planned = True
            self._soon(self._read)

    def tend(self) -> None:
        """Close connections that nobody uses; ask again those who did not answer."""
        for route in self:
            route.pool.tend()

    def probe(self) -> None:
        """See whether somebody listens now where nobody did, or tells now what nobody told."""
        if self._unread:
            return  # there is enough to ask
        for route in self:
            if route.unclear:
                route.refresh()
            elif route.state is RouteState.DOWN:
                self._unread.append(route)
        self._read_soon()

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
        self._unread.clear()

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
