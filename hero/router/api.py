"""RouterService: what the router of this node sees and does."""

from __future__ import annotations

from typing import Annotated, Protocol

from msgspec import Meta

from hero.identity.claims import Access
from hero.router.model import ConnectionPage, Route, RoutePage, RouterStats
from hero.rpc.declare import Call, method, service

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")]


@service()
class RouterService(Protocol):
    """The router of this node."""

    @method(Access.VIEWER)
    async def list_services(self, call: Call) -> RoutePage:
        """Every entry of the socket directory: its route, or the reason why it has none."""

    @method(Access.VIEWER)
    async def get_service(self, call: Call, *, service: Name, socket: Name) -> Route:
        """One entry of the socket directory. Errors: not_found."""

    @method(Access.ADMIN)
    async def list_connections(self, call: Call) -> ConnectionPage:
        """The clients that are connected now."""

    @method(Access.VIEWER)
    async def stats(self, call: Call) -> RouterStats:
        """Counts since the router started."""
