"""What can go wrong with a hypervisor."""

from __future__ import annotations

from hero.errors import HeroError


class HypervisorMissing(HeroError):
    """The program that runs the guests is not installed on the node."""

    kind = "hypervisor_missing"
    code = -32040


class GuestNotStarted(HeroError):
    """The hypervisor refused to start the guest; the detail has its own words."""

    kind = "guest_not_started"
    code = -32041


class GuestControlFailed(HeroError):
    """The guest's hypervisor process did not do what it was told, or does not answer."""

    kind = "guest_control_failed"
    code = -32042


class DiskFailed(HeroError):
    """The guest's disk could not be made."""

    kind = "disk_failed"
    code = -32043


class GuestFilesGone(HeroError):
    """The VM's disk is not where it was; an empty one is not put in its place."""

    kind = "guest_files_gone"
    code = -32044
