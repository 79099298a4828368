"""What is remembered on disk about a guest's latest run, so that it can be found again."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import attrs

from hero.compute.guest import GuestObservation, GuestState, StopReason

_FILE = "guest.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@attrs.frozen(kw_only=True)
class RunRecord:
    """A guest's latest run.

    *uuid* names the run to QEMU. *boot_id* is the boot of this machine it belongs to; *pid* and
    *start_ticks* (see `hero.compute.hypervisor.process`) are its process. *started* is in seconds
    since 1970. *reason* is set when the run is over, or as soon as it is known why it will be;
    *over* tells which.
    """

    sid: str
    uuid: str = ""
    boot_id: str = ""
    pid: int | None = None
    start_ticks: int | None = None
    started: float | None = None
    reason: StopReason | None = StopReason.NEVER_STARTED
    over: bool = True

    def observation(self, state: GuestState) -> GuestObservation:
        """What is seen of the guest while it is in *state*, or over."""
        return GuestObservation(
            sid=self.sid,
            state=GuestState.STOPPED if self.over else state,
            reason=self.reason if self.over else None,
            started_at=(
                None if self.started is None else datetime.fromtimestamp(self.started, tz=UTC)
            ),
            pid=None if self.over else self.pid,
        )


def this_boot() -> str:
    """An id of the time since this machine was started."""
    return _BOOT_ID.read_text().strip()


def has_record(directory: Path) -> bool:
    """Whether *directory* is that of a guest."""
    return (directory / _FILE).exists()


def read_record(directory: Path) -> RunRecord:
    """The record in *directory*, which is named by the guest's sid, a copy's by another.

    One that a power failure spoilt counts as a run which that power failure ended.
    """
    try:
        members = json.loads((directory / _FILE).read_bytes())
        reason = members.pop("reason")
        members["sid"] = directory.name
        return RunRecord(reason=None if reason is None else StopReason(reason), **members)
    except (ValueError, TypeError, KeyError):
        return RunRecord(sid=directory.name, reason=StopReason.HOST_REBOOT)


def write_record(directory: Path, record: RunRecord) -> None:
    """Put *record* in place of the one in *directory*, all or nothing."""
    unfinished = directory / f"{_FILE}.new"
    unfinished.write_text(json.dumps(attrs.asdict(record)))
    os.replace(unfinished, directory / _FILE)
