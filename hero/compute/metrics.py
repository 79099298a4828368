"""What a compute service lets Prometheus see of its node."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from hero.compute.model import NodeStatus


class NodeMetrics:
    """``hero_vms``, ``hero_vms_running``, ``hero_slices``, ``hero_slices_free``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._vms = Gauge("hero_vms", "VMs of the node", registry=registry)
        self._running = Gauge("hero_vms_running", "VMs that run", registry=registry)
        self._slices = Gauge("hero_slices", "Slices of the node", registry=registry)
        self._free = Gauge("hero_slices_free", "Slices that no VM uses", registry=registry)

    def update(self, status: NodeStatus) -> None:
        """Take the numbers from *status*."""
        self._vms.set(status.vms)
        self._running.set(status.vms_running)
        self._slices.set(status.capacity.slices)
        self._free.set(status.capacity.slices_free)
