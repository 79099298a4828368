"""From what a node has written down to what stands on the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

import attrs
import msgspec

from hero.compute.model import (
    Accelerator,
    Capacity,
    Image,
    NodeStatus,
    Slice,
    Vm,
    VmState,
)
from hero.compute.node import NodeFacts
from hero.compute.record import VmRecord


def describe_vm(record: VmRecord, facts: NodeFacts, *, observed_at: datetime | None) -> Vm:
    """*record* as a `Vm`."""
    return Vm(
        sid=record.sid,
        name=record.name,
        context=record.context,
        image=record.image,
        state=record.state,
        wanted_state=record.wanted,
        slices=list(record.slices),
        vcpus=record.vcpus,
        memory=record.memory,
        disk=record.disk,
        created_at=record.created_at,
        started_at=record.started_at,
        reason=record.reason,
        labels=record.labels,
        node_sid=facts.sid,
        node_name=facts.name,
        observed_at=observed_at,
    )


def describe_slice(slice_: Slice, facts: NodeFacts) -> Slice:
    """*slice_* with its node."""
    return attrs.evolve(slice_, node_sid=facts.sid)


def describe_image(image: Image, facts: NodeFacts) -> Image:
    """*image* with its node."""
    return attrs.evolve(image, node_sid=facts.sid)


def describe_capacity(slices: Sequence[Slice], facts: NodeFacts) -> Capacity:
    """What the node can hold, and how much of it is free."""
    return Capacity(
        memory=sum(s.memory for s in slices),
        disk=sum(s.disk for s in slices),
        vcpus=facts.vcpus,
        slice_memory=facts.division.memory,
        slice_disk=facts.division.disk,
        slices=len(slices),
        slices_free=sum(s.state == "free" for s in slices),
    )


def describe_node(
    facts: NodeFacts,
    *,
    slices: Sequence[Slice],
    records: Sequence[VmRecord],
    load: float,
    accelerator: Accelerator | None,
    problems: list[str],
) -> NodeStatus:
    """The node as it is now."""
    return NodeStatus(
        node_sid=facts.sid,
        name=facts.name,
        version=facts.version,
        boot_id=facts.boot_id,
        hypervisor=facts.hypervisor,
        accelerator=accelerator,
        capacity=describe_capacity(slices, facts),
        load=load,
        vms=len(records),
        vms_running=sum(r.state is VmState.RUNNING for r in records),
        started_at=facts.started_at,
        problems=problems,
    )


def digest_vms(vms: Sequence[Vm]) -> str:
    """The SHA-256, in hex, of *vms*, whose ``observed_at`` does not count."""
    ordered = sorted(vms, key=lambda vm: vm.sid)
    plain = [attrs.evolve(vm, observed_at=None) for vm in ordered]
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()
