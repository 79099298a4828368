"""The values that a hypervisor and its callers exchange about one guest.

Sizes are bytes, durations are seconds, times are UTC.
"""

from __future__ import annotations

import enum
from datetime import datetime
from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class ImageFiles:
    """The files of an image that is ready to start guests from.

    A guest boots *kernel* with *initrd* and *cmdline*, or its own disk where there is no kernel.
    *disk* is the file that the guests' own disks are laid over; without one they start empty.
    *digest* is the SHA-256 of the image's content.
    """

    name: str
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    disk: Path | None = None
    digest: str = ""


@attrs.frozen(kw_only=True)
class GuestSpec:
    """A guest as it should be: its hardware and its image.

    *directory* is for its files; it is named by the sid and lies in the hypervisor's own.
    """

    sid: str
    name: str
    vcpus: int
    memory: int
    disk: int
    image: ImageFiles
    directory: Path


class GuestState(enum.StrEnum):
    """What a guest is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class StopReason(enum.StrEnum):
    """Why a guest is stopped."""

    NEVER_STARTED = "never started"
    #: It was asked to power off, by its owner through us, and did.
    STOPPED = "stopped"
    #: It powered off by itself.
    GUEST_SHUTDOWN = "guest-shutdown"
    #: Its kernel panicked.
    GUEST_PANIC = "guest-panic"
    #: Its owner pulled the plug, or it did not power off in time.
    KILLED = "killed"
    #: Its hypervisor process ended without being told to.
    CRASHED = "crashed"
    #: The machine under it was restarted.
    HOST_REBOOT = "host-reboot"


@attrs.frozen(kw_only=True)
class GuestObservation:
    """What a hypervisor sees of a guest. *reason* is set where it is stopped.

    *started_at* is when its latest run began, *pid* its process while there is one.
    """

    sid: str
    state: GuestState
    reason: StopReason | None = None
    started_at: datetime | None = None
    pid: int | None = None


@attrs.frozen(kw_only=True)
class GuestStats:
    """What a guest uses right now. A stopped one uses only its disk.

    *cpu_seconds* and *uptime* count from the start of its process.
    """

    sid: str
    state: GuestState
    cpu_seconds: float
    memory_resident: int
    disk_used: int
    uptime: float | None = None
