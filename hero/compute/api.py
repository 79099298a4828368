"""ComputeService: virtual machines of one node, or of the whole cluster.

A node's compute service and the explorer implement the same declaration, so that a client written
for one node works for a thousand.
"""

from __future__ import annotations

from typing import Annotated, Protocol

from msgspec import Meta

from hero.compute.model import (
    Image,
    ImagePage,
    ImageRef,
    Labels,
    NodeStatus,
    PageSize,
    SliceCount,
    SlicePage,
    Vm,
    VmLog,
    VmName,
    VmPage,
    VmRef,
    VmState,
    VmStats,
)
from hero.identity.claims import Access
from hero.operations import Operation, OperationPage, OperationSid
from hero.rpc.declare import Call, method, service

Seconds = Annotated[float, Meta(ge=0, le=3600)]
NodeRef = Annotated[str, Meta(min_length=1, max_length=253, description="a node's sid or name")]


@service(delegable=True)
class ComputeService(Protocol):
    """Virtual machines of one node, or of the whole cluster where an explorer answers."""

    @method(Access.VIEWER)
    async def node_status(self, call: Call, *, node: NodeRef | None = None) -> NodeStatus:
        """Capacity, load and health of the node.

        An explorer needs *node* where the cluster has more than one.
        """

    @method(Access.VIEWER)
    async def list_slices(self, call: Call, *, node: NodeRef | None = None) -> SlicePage:
        """The slices of the node, or of every node, and which VM uses each."""

    @method(Access.OPERATOR, operation=True)
    async def deploy_vm(
        self,
        call: Call,
        *,
        name: VmName,
        image: ImageRef = "micro",
        slices: SliceCount = 1,
        slice_sid: Annotated[str, Meta(max_length=63)] | None = None,
        vcpus: Annotated[int, Meta(ge=1, le=256)] = 1,
        labels: Labels | None = None,
        start: bool = True,
        node: NodeRef | None = None,
        vm_sid: Annotated[str, Meta(pattern=r"^vm-[0-9a-z]{10}\Z")] | None = None,
    ) -> Vm:
        """Make a VM and start it.

        It takes *slices* free slices, the one named *slice_sid* among them if given; memory and
        disk are theirs. *node* asks for a certain node. *vm_sid* is the id to use, chosen by an
        explorer; leave it out otherwise.

        Errors: name_taken, not_found (image, slice or node), slice_unavailable, image_unavailable,
        node_unreachable, no_capacity.
        """

    @method(Access.VIEWER)
    async def list_vms(
        self,
        call: Call,
        *,
        state: VmState | None = None,
        node: NodeRef | None = None,
        labels: Labels | None = None,
        limit: PageSize = 100,
        after: Annotated[str, Meta(max_length=256)] | None = None,
    ) -> VmPage:
        """The VMs of the context in order of name, with the given *state*, *node* and *labels*.

        *after* is the ``next`` of the page before.
        """

    @method(Access.VIEWER)
    async def get_vm(self, call: Call, *, vm: VmRef) -> Vm:
        """One VM. Errors: not_found."""

    @method(Access.OPERATOR, operation=True)
    async def start_vm(self, call: Call, *, vm: VmRef) -> Vm:
        """Start a stopped VM; a running one is left as it is. Errors: not_found, conflict."""

    @method(Access.OPERATOR, operation=True)
    async def stop_vm(
        self, call: Call, *, vm: VmRef, grace: Seconds = 10.0, force: bool = False
    ) -> Vm:
        """Stop a VM: ask the guest to power off, and after *grace* seconds pull the plug.

        *force* pulls the plug at once. Errors: not_found, conflict.
        """

    @method(Access.OPERATOR, operation=True)
    async def restart_vm(
        self, call: Call, *, vm: VmRef, grace: Seconds = 10.0, force: bool = False
    ) -> Vm:
        """Stop a VM as `stop_vm` does, and start it again. Errors: not_found, conflict."""

    @method(Access.OPERATOR, operation=True)
    async def pause_vm(self, call: Call, *, vm: VmRef) -> Vm:
        """Freeze a running VM; its memory stays in place. Errors: not_found, conflict."""

    @method(Access.OPERATOR, operation=True)
    async def resume_vm(self, call: Call, *, vm: VmRef) -> Vm:
        """Let a paused VM go on. Errors: not_found, conflict."""

    @method(Access.OPERATOR, operation=True)
    async def delete_vm(self, call: Call, *, vm: VmRef, force: bool = False) -> Vm:
        """Delete a VM and its disk, for good, and free its slices.

        A running VM is refused unless *force* is set. Errors: not_found, conflict.
        """

    @method(Access.VIEWER)
    async def vm_stats(self, call: Call, *, vm: VmRef) -> VmStats:
        """What a VM uses right now. Errors: not_found."""

    @method(Access.VIEWER)
    async def vm_logs(
        self,
        call: Call,
        *,
        vm: VmRef,
        offset: Annotated[int, Meta(ge=0)] | None = None,
        limit: Annotated[int, Meta(ge=1, le=1048576)] = 65536,
        wait: Annotated[float, Meta(ge=0, le=60)] = 0.0,
    ) -> VmLog:
        """Serial console output from byte *offset*; the last *limit* bytes without one.

        With *wait*, an empty answer is held back up to that many seconds for output to come.
        Errors: not_found.
        """

    @method(Access.VIEWER)
    async def list_images(self, call: Call, *, node: NodeRef | None = None) -> ImagePage:
        """The images that VMs can start from, on the node or on every node."""

    @method(Access.OPERATOR, operation=True)
    async def build_image(
        self, call: Call, *, image: ImageRef = "micro", node: NodeRef | None = None
    ) -> Image:
        """Build a built-in image on the node now, rather than at the first deploy that needs it."""

    @method(Access.VIEWER)
    async def list_operations(
        self,
        call: Call,
        *,
        target: Annotated[str, Meta(max_length=63)] | None = None,
        state: Annotated[str, Meta(max_length=16)] | None = None,
        limit: PageSize = 100,
    ) -> OperationPage:
        """The newest operations of the context, newest first."""

    @method(Access.VIEWER)
    async def get_operation(
        self,
        call: Call,
        *,
        sid: OperationSid,
        wait: Annotated[float, Meta(ge=0, le=60)] = 0.0,
    ) -> Operation:
        """One operation; with *wait*, held back up to that many seconds until it has ended.

        Errors: not_found.
        """

    @method(Access.OPERATOR, mutates=True)
    async def cancel_operation(self, call: Call, *, sid: OperationSid) -> Operation:
        """Stop an operation where it can still be undone. Errors: not_found, conflict."""
