"""Finding out what can run guests on this machine, by running one.

``/dev/kvm`` may exist, open, and make virtual machines, and still never run an ordinary kernel, as
on machines that are guests themselves. So a guest is booted with a time limit, once for each boot
of the machine; where it does not get to its first line, QEMU's own translator is used. A guest that
took too long may have had a busy machine: that is believed after a few starts of the service only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from hero.compute.guest import ImageFiles
from hero.compute.hypervisor import qemu_command
from hero.compute.hypervisor.qemu_guest import program_missing
from hero.compute.hypervisor.run_record import this_boot
from hero.compute.model import Accelerator
from hero.compute.programs import ProgramMissing, run_program
from hero.errors import Timeout

_log = Logger()

_FILE = "accelerator.json"
_KVM = Path("/dev/kvm")

#: Seconds for the probe to boot and power off. Where KVM works it takes one.
_LIMIT = 4.0

#: So many probes that took too long count as the answer until the machine is restarted.
_ENOUGH_TIMEOUTS = 3

#: What the probe prints, as `qemu_command.probe_command` names it.
_READY = "hero micro: probe ready"

#: What is used until anything has been proved.
UNPROVED = Accelerator(name="tcg", proved=False, detail="KVM has not been tried yet")


def remembered_accelerator(state_dir: Path) -> Accelerator | None:
    """What was found out since the machine was started, if anything."""
    accelerator, timeouts = _recall(state_dir)
    if accelerator is None or 0 < timeouts < _ENOUGH_TIMEOUTS:
        return None
    if accelerator.name == "kvm" and not _may_open(_KVM):
        return None
    return accelerator


async def prove_accelerator(
    reactor: Any, state_dir: Path, image: ImageFiles, device: Path = _KVM
) -> Accelerator:
    """What is to run guests, from memory or by booting *image*, the one called micro.

    Raises `hero.compute.hypervisor.errors.HypervisorMissing`.
    """
    accelerator = remembered_accelerator(state_dir)
    if accelerator is None:
        if not os.access(device, os.F_OK):
            return _fallback(f"there is no {device}")
        if not _may_open(device):
            return _fallback(f"{device} may not be opened; members of the group kvm may")
        try:
            accelerator, timeouts = await _try_kvm(reactor, state_dir, image), 0
        except Timeout:
            accelerator = _fallback(f"a guest with KVM printed nothing within {_LIMIT:g} s")
            timeouts = _recall(state_dir)[1] + 1
        _remember(state_dir, accelerator, timeouts)
        _log.info(
            "guests run with {name}: {detail}", name=accelerator.name, detail=accelerator.detail
        )
    return accelerator


async def _try_kvm(reactor: Any, directory: Path, image: ImageFiles) -> Accelerator:
    try:
        result = await run_program(
            reactor,
            qemu_command.probe_command(image, "kvm"),
            directory=directory,
            limit=_LIMIT,
        )
    except ProgramMissing as missing:
        raise program_missing(str(missing)) from None
    if result.status != 0:
        return _fallback(f"QEMU with KVM failed: {result.last_words}")
    if _READY not in result.output:
        return _fallback("a guest with KVM ended without printing that it was ready")
    return Accelerator(name="kvm", proved=True, detail="a guest was booted with it")


def _may_open(device: Path) -> bool:
    return os.access(device, os.R_OK | os.W_OK)


def _fallback(detail: str) -> Accelerator:
    return Accelerator(name="tcg", proved=False, detail=f"{detail}, so QEMU translates")


def _recall(state_dir: Path) -> tuple[Accelerator | None, int]:
    """What is written down for this boot of the machine, and how many probes took too long."""
    try:
        members = json.loads((state_dir / _FILE).read_bytes())
        boot_id, timeouts = members.pop("boot_id"), int(members.pop("timeouts", 0))
        accelerator = Accelerator(**members)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None, 0
    return (accelerator, timeouts) if boot_id == this_boot() else (None, 0)


def _remember(state_dir: Path, accelerator: Accelerator, timeouts: int) -> None:
    unfinished = state_dir / f"{_FILE}.new"
    members = {"boot_id": this_boot(), "timeouts": timeouts, **attrs.asdict(accelerator)}
    unfinished.write_text(json.dumps(members))
    os.replace(unfinished, state_dir / _FILE)
