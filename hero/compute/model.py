"""The values that ComputeService speaks of, as they stand on the wire.

Sizes are bytes, times are UTC, durations are seconds.
"""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Annotated, Any, Literal

import attrs
from msgspec import Meta

VmName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z",
        description="lower-case letters, digits and hyphens, as in a host name (RFC 1123)",
    ),
]
VmRef = Annotated[str, Meta(min_length=1, max_length=63, description="a VM's sid or name")]
ImageRef = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z",
        description="an image's name, such as micro",
    ),
]
SliceCount = Annotated[int, Meta(ge=1, le=1024)]
PageSize = Annotated[int, Meta(ge=1, le=1000)]
Labels = dict[
    Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}\Z")],
    Annotated[str, Meta(max_length=255)],
]


class VmState(enum.StrEnum):
    """Where a VM is in its life, as its node last saw it."""

    REQUESTED = "requested"
    PROVISIONING = "provisioning"
    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"
    DELETING = "deleting"


class WantedState(enum.StrEnum):
    """Where the owner wants a VM to be."""

    STOPPED = "stopped"
    RUNNING = "running"
    PAUSED = "paused"
    DELETED = "deleted"


@attrs.frozen(kw_only=True)
class Slice:
    """A unit of a node's capacity: so much memory and disk, free or in use by one VM."""

    sid: str
    index: int
    memory: int
    disk: int
    state: Literal["free", "in_use"]
    vm_sid: str | None = None
    node_sid: str | None = None


@attrs.frozen(kw_only=True)
class Vm:
    """A virtual machine.

    ``reason`` says why it is stopped or failed where nobody asked for that. ``observed_at`` is
    when its node last said so; ``reachable`` is false where that node does not answer at present.
    """

    sid: str
    name: str
    context: str
    image: str
    state: VmState
    wanted_state: WantedState
    slices: list[str]
    vcpus: int
    memory: int
    disk: int
    created_at: datetime
    started_at: datetime | None = None
    reason: str | None = None
    labels: dict[str, str] = attrs.field(factory=dict)
    node_sid: str | None = None
    node_name: str | None = None
    observed_at: Annotated[datetime, Meta(tz=True)] | None = None
    reachable: bool = True


@attrs.frozen(kw_only=True)
class VmPage:
    """Some of the VMs. ``next`` is the cursor of the next page, None on the last.

    ``unreachable`` names the nodes that did not answer lately: what is said of their VMs is the
    last thing known.
    """

    items: list[Vm]
    next: str | None = None
    unreachable: list[str] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class SlicePage:
    """The slices of the node, or of every node, with the nodes that did not answer."""

    items: list[Slice]
    unreachable: list[str] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class VmStats:
    """What a VM uses right now. ``cpu_seconds`` counts from the start of its process."""

    vm_sid: str
    state: VmState
    cpu_seconds: float
    memory_resident: int
    memory: int
    disk_used: int
    uptime: float | None = None


@attrs.frozen(kw_only=True)
class VmLog:
    """A piece of a VM's serial console output.

    ``offset`` is the byte of the stream at which ``data`` starts; ``next_offset`` is where to go
    on reading. Bytes that are not UTF-8 stand as U+FFFD.
    """

    vm_sid: str
    offset: int
    next_offset: int
    data: str


@attrs.frozen(kw_only=True)
class Image:
    """A disk image that VMs start from."""

    name: str
    state: Literal["absent", "building", "ready", "failed"]
    description: str
    size: int | None = None
    digest: str | None = None
    created_at: datetime | None = None
    error: str | None = None
    node_sid: str | None = None


@attrs.frozen(kw_only=True)
class ImagePage:
    """The images of the node, or of every node, with the nodes that did not answer."""

    items: list[Image]
    unreachable: list[str] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class Accelerator:
    """What runs the guests' instructions: ``kvm`` where it was proved to work, else ``tcg``."""

    name: str
    proved: bool
    detail: str


@attrs.frozen(kw_only=True)
class Capacity:
    """What a node can hold."""

    memory: int
    disk: int
    vcpus: int
    slice_memory: int
    slice_disk: int
    slices: int
    slices_free: int


@attrs.frozen(kw_only=True)
class NodeStatus:
    """A node, as its own compute service sees it."""

    node_sid: str
    name: str
    version: str
    boot_id: str
    hypervisor: str
    accelerator: Accelerator | None
    capacity: Capacity
    load: float
    vms: int
    vms_running: int
    started_at: datetime
    problems: list[str] = attrs.field(factory=list)
    details: dict[str, Any] = attrs.field(factory=dict)
