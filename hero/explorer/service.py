"""ExplorerService: the methods, each of which hands on to the module that does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hero import __version__
from hero.compute.model import VmState
from hero.errors import Conflict, Forbidden
from hero.explorer.deployment import Deployer
from hero.explorer.index import VmIndex
from hero.explorer.joining import Joining
from hero.explorer.model import (
    ApiToken,
    ApiTokenPage,
    Certificate,
    ClusterStatus,
    Heartbeat,
    HeartbeatReply,
    JoinToken,
    LoginCode,
    Membership,
    Node,
    NodePage,
    NodeState,
    PlacementExplanation,
    Session,
)
from hero.explorer.nodes import check_sender
from hero.explorer.placement import Wanted
from hero.explorer.registry import Registry
from hero.explorer.sessions import Sessions
from hero.explorer.tokens import Tokens
from hero.operation_log import OperationLog
from hero.rpc.declare import Call


class Explorer:
    """Implements `hero.explorer.api.ExplorerService`.

    *mode* is ``local`` or ``master``; *addresses* tells the URLs by which nodes reach this
    explorer.
    """

    def __init__(
        self,
        *,
        cluster_id: str,
        mode: str,
        addresses: Callable[[], Sequence[str]],
        registry: Registry,
        index: VmIndex,
        deployer: Deployer,
        joining: Joining,
        tokens: Tokens,
        sessions: Sessions,
        operations: OperationLog,
    ) -> None:
        self.operations = operations
        self._cluster_id = cluster_id
        self._mode = mode
        self._addresses = addresses
        self._registry = registry
        self._index = index
        self._deployer = deployer
        self._joining = joining
        self._tokens = tokens
        self._sessions = sessions

    async def create_join_token(self, call: Call, *, lifetime: float = 3600.0) -> JoinToken:
        """See `ExplorerService.create_join_token`."""
        return await self._joining.create_token(call, lifetime)

    async def join(
        self,
        call: Call,
        *,
        cluster_id: str,
        secret: str,
        csr: str,
        name: str,
        advertise_address: str,
    ) -> Membership:
        """See `ExplorerService.join`."""
        return await self._joining.join(
            cluster_id=cluster_id,
            secret=secret,
            csr=csr,
            name=name,
            advertise_address=advertise_address,
        )

    async def renew_certificate(self, call: Call, *, certificate: str, csr: str) -> Certificate:
        """See `ExplorerService.renew_certificate`."""
        return await self._joining.renew(certificate=certificate, csr=csr)

    async def heartbeat(
        self, call: Call, *, heartbeat: Heartbeat, tokens_digest: str = ""
    ) -> HeartbeatReply:
        """See `ExplorerService.heartbeat`."""
        check_sender(call.caller, heartbeat, local_sid=self._registry.local_sid)
        accepted = await self._registry.heartbeat(heartbeat)
        record = accepted.record
        if accepted.report is not None:
            self._index.announce(accepted.report)
        self._deployer.clean(record, accepted.unwanted)
        tokens = None
        if not record.local and tokens_digest != self._tokens.digest:
            tokens = self._tokens.records
        return HeartbeatReply(
            interval=self._registry.interval,
            send_vms=accepted.send_vms,
            state=self._registry.state(record),
            tokens=tokens,
            explorer_addresses=None if record.local else list(self._addresses()),
        )

    async def list_nodes(self, call: Call) -> NodePage:
        """See `ExplorerService.list_nodes`."""
        return NodePage(items=self._registry.nodes())

    async def get_node(self, call: Call, *, node: str) -> Node:
        """See `ExplorerService.get_node`."""
        return self._registry.describe(self._registry.get(node))

    async def cordon_node(self, call: Call, *, node: str) -> Node:
        """See `ExplorerService.cordon_node`."""
        return await self._cordon(node, True)

    async def activate_node(self, call: Call, *, node: str) -> Node:
        """See `ExplorerService.activate_node`."""
        return await self._cordon(node, False)

    async def remove_node(self, call: Call, *, node: str, force: bool = False) -> Node:
        """See `ExplorerService.remove_node`."""
        record = self._registry.get(node)
        if record.local:
            raise Conflict(
                f"{record.name} is the machine that this explorer runs on",
                hint="`hero down` stops it; `hero node cordon` keeps new VMs away from it",
            )
        if record.vms and not force:
            raise Conflict(
                f"the node {record.name} has {record.vms} VMs, as far as is known",
                hint="delete them first, or use --force; they run on, unknown to the cluster",
                data={"vms": record.vms},
            )
        return self._registry.describe(await self._joining.remove(record.sid))

    async def cluster_status(self, call: Call) -> ClusterStatus:
        """See `ExplorerService.cluster_status`."""
        nodes = self._registry.nodes()
        counts = await self._index.counts()
        capacities = [n.capacity for n in nodes if n.capacity is not None]
        up = (NodeState.ONLINE, NodeState.CORDONED)
        return ClusterStatus(
            cluster_id=self._cluster_id,
            version=__version__,
            mode=self._mode,
            nodes=len(nodes),
            nodes_online=sum(n.state in up for n in nodes),
            unreachable=self._registry.unreachable(),
            vms=sum(counts.values()),
            vms_running=counts.get(VmState.RUNNING, 0),
            slices=sum(c.slices for c in capacities),
            slices_free=sum(
                n.capacity.slices_free
                for n in nodes
                if n.capacity is not None and n.state is NodeState.ONLINE
            ),
            heartbeat_interval=self._registry.interval,
            explorer_addresses=list(self._addresses()),
        )

    async def explain_placement(
        self,
        call: Call,
        *,
        slices: int = 1,
        image: str = "micro",
        labels: dict[str, str] | None = None,
        node: str | None = None,
    ) -> PlacementExplanation:
        """See `ExplorerService.explain_placement`."""
        if node is not None:
            node = self._registry.get(node).sid
        return self._deployer.explain(Wanted(slices=slices, node=node))

    async def create_token(
        self,
        call: Call,
        *,
        user: str = "admin",
        role: str = "admin",
        context: str = "root",
        lifetime: float | None = None,
    ) -> ApiToken:
        """See `ExplorerService.create_token`."""
        return await self._tokens.create(
            call, user=user, role=role, context=context, lifetime=lifetime
        )

    async def list_tokens(self, call: Call) -> ApiTokenPage:
        """See `ExplorerService.list_tokens`."""
        return await self._tokens.list()

    async def revoke_token(self, call: Call, *, sid: str) -> ApiToken:
        """See `ExplorerService.revoke_token`."""
        return await self._tokens.revoke(sid)

    async def create_login_code(self, call: Call) -> LoginCode:
        """See `ExplorerService.create_login_code`."""
        if call.caller.node_sid is not None:
            raise Forbidden(
                f"{call.caller.user} is a machine, which has no use for the web console",
                hint="log in with a bearer token",
            )
        return await self._sessions.create_code(call)

    async def redeem_login_code(self, call: Call, *, code: str) -> Session:
        """See `ExplorerService.redeem_login_code`."""
        return await self._sessions.redeem(code)

    async def get_session(self, call: Call, *, secret: str) -> Session:
        """See `ExplorerService.get_session`."""
        return await self._sessions.get(secret)

    async def end_session(self, call: Call, *, secret: str) -> None:
        """See `ExplorerService.end_session`."""
        await self._sessions.end(secret)

    async def _cordon(self, node: str, cordoned: bool) -> Node:
        record = self._registry.get(node)
        return self._registry.describe(await self._registry.change(record.sid, cordoned=cordoned))
