"""What the console asks of the explorer, always in its visitor's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import attrs
import msgspec

from hero.errors import Timeout, Unavailable
from hero.explorer.model import Session
from hero.rpc.client import RpcClient
from hero.rpc.urls import unix_url
from hero.ui.visitor import NOBODY, Visitor

#: Seconds: shorter than the page waits for its answer.
_TIMEOUT = 8.0

#: VMs on one page.
_MOST_VMS = 1000


class Explorer(Protocol):
    """Where the console's facts come from."""

    async def redeem(self, code: str) -> Session:
        """The session for a one-time code. Raises `Unauthenticated`."""

    async def session(self, secret: str) -> Visitor:
        """The visitor whose cookie holds *secret*. Raises `Unauthenticated`."""

    async def end(self, secret: str) -> None:
        """Forget the session of *secret*."""

    async def overview(self, visitor: Visitor) -> dict[str, Any]:
        """What the page shows to *visitor*."""


@attrs.frozen
class SocketExplorer:
    """The explorer of this machine, on its UNIX socket."""

    reactor: Any
    socket: Path

    async def redeem(self, code: str) -> Session:
        answer = await self._ask(NOBODY, "explorer", "redeem_login_code", code=code)
        return msgspec.convert(answer, Session)

    async def session(self, secret: str) -> Visitor:
        answer = await self._ask(NOBODY, "explorer", "get_session", secret=secret)
        session = msgspec.convert(answer, Session)
        return Visitor(
            user=session.user, claims=session.claims, context=session.context, session=True
        )

    async def end(self, secret: str) -> None:
        await self._ask(NOBODY, "explorer", "end_session", secret=secret)

    async def overview(self, visitor: Visitor) -> dict[str, Any]:
        cluster = await self._ask(visitor, "explorer", "cluster_status")
        nodes = await self._ask(visitor, "explorer", "list_nodes")
        vms = await self._ask(visitor, "cloud", "list_vms", limit=_MOST_VMS)
        return {
            "cluster": cluster,
            "nodes": nodes["items"],
            "vms": vms["items"],
            "more": vms.get("next") is not None,
            "visitor": {"user": visitor.user, "session": visitor.session},
        }

    async def _ask(self, visitor: Visitor, kind: str, method: str, **params: Any) -> Any:
        service = {"explorer": "ExplorerService", "cloud": "ComputeService"}[kind]
        client = RpcClient(
            self.reactor,
            unix_url(self.socket, visitor.context, kind),
            headers=visitor.headers,
            timeout=_TIMEOUT,
        )
        try:
            return await client.call(f"{service}.{method}", params)
        except (Unavailable, Timeout) as error:
            # Which socket and which method is for the log of the one who runs this machine.
            raise type(error)(
                "the explorer on this machine does not answer",
                hint="hero status shows there what runs",
                retry_after=error.retry_after,
            ) from error
