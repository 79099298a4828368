"""What machine this is, and what else runs on it while we measure."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import attrs

_TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class CoreTime:
    """A core's clock: seconds busy so far, seconds stolen by the hypervisor, and when."""

    busy: float
    stolen: float
    at: float

    @classmethod
    def now(cls, core: int) -> CoreTime:
        """Read ``/proc/stat``."""
        for line in Path("/proc/stat").read_text().splitlines():
            name, *columns = line.split()
            if name == f"cpu{core}":
                user, nice, system, _idle, _wait, irq, softirq, steal = map(int, columns[:8])
                busy = user + nice + system + irq + softirq
                return cls(busy / _TICKS, steal / _TICKS, time.monotonic())
        raise ValueError(f"there is no core {core}")

    def other_load(self, before: CoreTime, ours: float) -> float:
        """The share of the time since *before* that others than us had; *ours* is in seconds."""
        elapsed = self.at - before.at
        others = (self.busy - before.busy) - ours + (self.stolen - before.stolen)
        return max(0.0, others / elapsed)


def describe_machine() -> dict[str, str]:
    """What the figures depend on besides the programs."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    distribution = platform.freedesktop_os_release()["PRETTY_NAME"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "distribution": distribution,
        "began": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load average {os.getloadavg()[0]:.1f}",
    }
