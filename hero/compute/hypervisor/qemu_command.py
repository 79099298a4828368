"""The arguments that QEMU is started with. Nothing here touches anything.

QEMU runs in the guest's directory, so that the names of its sockets and files are short.
"""

from __future__ import annotations

from pathlib import Path

from hero.compute.guest import GuestSpec, ImageFiles

PROGRAM = "qemu-system-x86_64"
IMAGE_PROGRAM = "qemu-img"
PACKAGES = {PROGRAM: "qemu-system-x86", IMAGE_PROGRAM: "qemu-utils"}

# Files in the guest's directory.
DISK = "disk.qcow2"
QMP_SOCKET = "qmp.sock"
SPARE_QMP_SOCKET = "qmp-spare.sock"
CONSOLE_SOCKET = "console.sock"
CONSOLE_LOG = "console.log"
PID_FILE = "qemu.pid"
MESSAGES = "qemu.log"

_MIB = 1024 * 1024

#: What QEMU may not do once it runs: gain rights, start programs, change its own priority.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def guest_command(spec: GuestSpec, uuid: str, accelerator: str) -> list[str]:
    """QEMU's arguments for a guest that is found again by *uuid*.

    A guest that powers off or panics leaves QEMU paused, which keeps the reason for those who
    look later.
    """
    return [
        PROGRAM,
        *("-name", f"guest={escaped(spec.sid)}"),
        *("-uuid", uuid),
        *("-pidfile", PID_FILE),
        *_machine(spec.memory, spec.vcpus, accelerator),
        *("-action", "shutdown=pause,panic=pause"),
        *("-device", "pvpanic"),
        *("-device", "virtio-rng-pci"),
        *_socket("console", CONSOLE_SOCKET, f",logfile={CONSOLE_LOG},logappend=on"),
        *("-serial", "chardev:console"),
        *_socket("qmp", QMP_SOCKET),
        *("-mon", "chardev=qmp,mode=control"),
        *_socket("qmp-spare", SPARE_QMP_SOCKET),
        *("-mon", "chardev=qmp-spare,mode=control"),
        *(
            "-blockdev",
            "driver=qcow2,node-name=disk0,discard=unmap,"
            f"file.driver=file,file.filename={DISK},file.discard=unmap",
        ),
        *("-device", "virtio-blk-pci,drive=disk0"),
        *_kernel(spec.image, f"hero.name={spec.name}"),
    ]


def probe_command(image: ImageFiles, accelerator: str) -> list[str]:
    """QEMU's arguments for a guest that prints that it is ready and powers off."""
    return [
        PROGRAM,
        *_machine(128 * _MIB, 1, accelerator),
        "-no-reboot",
        *("-chardev", "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
        *_kernel(image, "panic=-1 hero.probe=1 hero.name=probe"),
    ]


def disk_command(size: int, backing: Path | None, path: str) -> list[str]:
    """qemu-img's arguments for a disk of *size* bytes at *path*, over *backing* if given."""
    over = [] if backing is None else ["-b", str(backing), "-F", "qcow2"]
    return [IMAGE_PROGRAM, "create", "-q", "-f", "qcow2", *over, path, str(size)]


def escaped(value: str) -> str:
    """*value* as part of a QEMU option, in which a comma ends a value and two are one."""
    return value.replace(",", ",,")


def _machine(memory: int, vcpus: int, accelerator: str) -> list[str]:
    tuning = ["-accel", "tcg,tb-size=64"] if accelerator == "tcg" else ["-accel", accelerator]
    cpu = [] if accelerator == "tcg" else ["-cpu", "host"]
    return [
        "-nodefaults",
        "-no-user-config",
        *("-sandbox", _SANDBOX),
        *("-display", "none"),
        *("-nic", "none"),
        *("-machine", "pc"),
        *tuning,
        *cpu,
        *("-smp", str(vcpus)),
        *("-m", f"size={max(memory // _MIB, 1)}M"),
    ]


def _socket(name: str, path: str, options: str = "") -> list[str]:
    return ["-chardev", f"socket,id={name},path={path},server=on,wait=off{options}"]


def _kernel(image: ImageFiles, parameters: str) -> list[str]:
    if image.kernel is None:
        return []
    initrd = [] if image.initrd is None else ["-initrd", str(image.initrd)]
    return ["-kernel", str(image.kernel), *initrd, "-append", f"{image.cmdline} {parameters}"]
