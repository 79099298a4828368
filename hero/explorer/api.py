"""ExplorerService: the cluster's nodes, who may join it, and who may use it."""

from __future__ import annotations

from typing import Annotated, Protocol

from msgspec import Meta

from hero.compute.api import NodeRef
from hero.compute.model import ImageRef, Labels, SliceCount
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
    PlacementExplanation,
    Session,
)
from hero.identity.claims import Access
from hero.rpc.declare import Call, method, service

Pem = Annotated[str, Meta(min_length=1, max_length=16384, description="PEM (RFC 7468)")]
Secret = Annotated[str, Meta(min_length=16, max_length=256)]
Lifetime = Annotated[float, Meta(gt=0, le=365 * 86400, description="seconds")]


@service()
class ExplorerService(Protocol):
    """The cluster: its nodes, who may join it, and who may use it."""

    @method(Access.ADMIN, mutates=True, secret=True)
    async def create_join_token(self, call: Call, *, lifetime: Lifetime = 3600.0) -> JoinToken:
        """Make a single-use token with which one machine can join, within *lifetime* seconds.

        Errors: conflict (the explorer runs in local mode).
        """

    @method(Access.PUBLIC, mutates=True)
    async def join(
        self,
        call: Call,
        *,
        cluster_id: Annotated[str, Meta(max_length=64)],
        secret: Secret,
        csr: Pem,
        name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")],
        advertise_address: Annotated[str, Meta(pattern=r"^https://[^\s/]+\Z", max_length=512)],
    ) -> Membership:
        """Become a node of the cluster, with the secret of a join token as proof.

        The same token with the same key answers again until it expires, so that a join whose
        reply was lost can be repeated.

        Errors: join_token_unknown, join_token_used, join_token_expired,
        join_token_other_cluster, name_taken.
        """

    @method(Access.PUBLIC, mutates=True)
    async def renew_certificate(self, call: Call, *, certificate: Pem, csr: Pem) -> Certificate:
        """Get a new certificate for a node's key.

        The proof is the request itself: *csr* is signed by the key of *certificate*, which the
        cluster's CA issued and which may have expired. Errors: certificate_refused.
        """

    @method(Access.NODE)
    async def heartbeat(
        self,
        call: Call,
        *,
        heartbeat: Heartbeat,
        tokens_digest: Annotated[str, Meta(max_length=64)] = "",
    ) -> HeartbeatReply:
        """Say that a node is alive, and what it has.

        Errors: node_unknown, forbidden (another node's identity), heartbeat_stale.
        """

    @method(Access.VIEWER)
    async def list_nodes(self, call: Call) -> NodePage:
        """The nodes of the cluster."""

    @method(Access.VIEWER)
    async def get_node(self, call: Call, *, node: NodeRef) -> Node:
        """One node. Errors: not_found."""

    @method(Access.ADMIN, mutates=True)
    async def cordon_node(self, call: Call, *, node: NodeRef) -> Node:
        """Place no new VM on the node. Errors: not_found."""

    @method(Access.ADMIN, mutates=True)
    async def activate_node(self, call: Call, *, node: NodeRef) -> Node:
        """Allow new VMs on the node again. Errors: not_found."""

    @method(Access.ADMIN, mutates=True)
    async def remove_node(self, call: Call, *, node: NodeRef, force: bool = False) -> Node:
        """Forget a node and refuse its certificate from now on.

        A node that has VMs, as far as is known, is refused unless *force* is set.
        Errors: not_found, conflict.
        """

    @method(Access.VIEWER)
    async def cluster_status(self, call: Call) -> ClusterStatus:
        """The cluster at a glance."""

    @method(Access.VIEWER)
    async def explain_placement(
        self,
        call: Call,
        *,
        slices: SliceCount = 1,
        image: ImageRef = "micro",
        labels: Labels | None = None,
        node: NodeRef | None = None,
    ) -> PlacementExplanation:
        """Where a VM would go now, and why not elsewhere."""

    @method(Access.ADMIN, mutates=True, secret=True)
    async def create_token(
        self,
        call: Call,
        *,
        user: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")] = "admin",
        role: Annotated[str, Meta(pattern=r"^(admin|operator|viewer)\Z")] = "admin",
        context: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")] = "root",
        lifetime: Lifetime | None = None,
    ) -> ApiToken:
        """Make a bearer token. Its secret is in the answer and is not kept."""

    @method(Access.ADMIN)
    async def list_tokens(self, call: Call) -> ApiTokenPage:
        """The bearer tokens, without their secrets."""

    @method(Access.ADMIN, mutates=True)
    async def revoke_token(
        self, call: Call, *, sid: Annotated[str, Meta(max_length=63)]
    ) -> ApiToken:
        """Refuse a bearer token from now on; twice is no error. Errors: not_found."""

    @method(Access.CLUSTER, mutates=True, secret=True)
    async def create_login_code(self, call: Call) -> LoginCode:
        """Make a one-time code with which a browser logs in as the caller, who is no node.

        Errors: forbidden.
        """

    @method(Access.PUBLIC, mutates=True, secret=True)
    async def redeem_login_code(self, call: Call, *, code: Secret) -> Session:
        """Trade a one-time code for a session. Errors: unauthenticated."""

    @method(Access.PUBLIC)
    async def get_session(self, call: Call, *, secret: Secret) -> Session:
        """The session that a cookie's *secret* stands for. Errors: unauthenticated."""

    @method(Access.PUBLIC, mutates=True)
    async def end_session(self, call: Call, *, secret: Secret) -> None:
        """Log out. A secret that stands for no session is no error."""
