"""The machine that a compute service runs on: who it is, what it has, how busy it is."""

from __future__ import annotations

import os
import shutil
import socket
from datetime import datetime
from pathlib import Path

import attrs
import psutil

from hero.compute.slices import MIB, Division, divide

#: The part of a file system that VMs leave to everything else.
_DISK_RESERVE = 0.1


@attrs.frozen(kw_only=True)
class NodeFacts:
    """What stays the same while the service runs. ``boot_id`` is new at each start of it."""

    sid: str
    name: str
    version: str
    boot_id: str
    hypervisor: str
    started_at: datetime
    vcpus: int
    division: Division


def default_name() -> str:
    """The machine's host name."""
    return socket.gethostname() or "node"


def default_address() -> str:
    """The address that this machine's connections to others come from, or the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing; it asks the kernel for a route.
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    return address


def measure(vms_dir: Path, slice_memory: int) -> Division:
    """Cut this machine up. What VMs in *vms_dir* use already counts as usable."""
    free = shutil.disk_usage(vms_dir).free
    used = sum(file.stat().st_blocks * 512 for file in vms_dir.glob("*/*") if file.is_file())
    return divide(
        total_memory=total_memory(),
        usable_disk=int((free + used) * (1 - _DISK_RESERVE)) // MIB * MIB,
        slice_memory=slice_memory,
    )


def total_memory() -> int:
    """Bytes of memory of this machine, or of the control group that it confines us to."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def load() -> float:
    """How busy the processors are: the load average of a minute for each of them."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 3)
