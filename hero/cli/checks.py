"""What ``hero doctor`` looks at: each check says what it found, and what mends it."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import attrs
import psutil

from hero.cli.instance import router_urls
from hero.cli.startup import MODE
from hero.cli.target import answers
from hero.errors import HeroError
from hero.paths import HeroPaths
from hero.settings import environment_name

_GIB = 1024**3
_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Parts of the standard library that some distributions leave out.
_MODULES = ("sqlite3", "ssl", "ctypes")

#: Programs that building images needs, with the Debian packages that hold them.
_IMAGE_PROGRAMS = {"apt-get": "apt", "dpkg-deb": "dpkg", "zstd": "zstd"}


@attrs.frozen
class Finding:
    """One thing that was looked at. ``mend`` is what to do about it."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    detail: str
    mend: str | None = None


@attrs.frozen
class Machine:
    """Where the checks look."""

    settings: Mapping[str, str]
    paths: HeroPaths

    @property
    def pretends(self) -> bool:
        """Whether VMs are only pretended to run."""
        return self.settings.get(environment_name("hypervisor")) == "memory"


def check_python(machine: Machine) -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if missing := [name for name in _MODULES if importlib.util.find_spec(name) is None]:
        return Finding(
            "python",
            "fail",
            f"{version} at {sys.executable} lacks {', '.join(missing)}",
            "install Hero again, or Python with these modules",
        )
    return Finding("python", "ok", f"{version} at {sys.executable}")


def check_qemu(machine: Machine) -> Finding:
    """The program that runs VMs."""
    architecture = os.uname().machine
    program = f"qemu-system-{architecture}"
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PROGRAMS}")
    if found:
        return Finding("qemu", "ok", found)
    package = "qemu-system-arm" if architecture == "aarch64" else "qemu-system-x86"
    return Finding(
        "qemu",
        "warn" if machine.pretends else "fail",
        f"{program} is not installed",
        f"sudo apt-get install {package}",
    )


def check_accelerator(machine: Machine) -> Finding:
    """What runs the guests' instructions."""
    device = Path("/dev/kvm")
    if not device.exists():
        return Finding(
            "accelerator",
            "warn",
            "no /dev/kvm: VMs run by emulation, which is several times slower",
            "switch on virtualization in the firmware (or nested virtualization), "
            "then sudo modprobe kvm_intel or kvm_amd",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding(
            "accelerator",
            "warn",
            "/dev/kvm is there, but not for this user: VMs run by emulation",
            "sudo usermod -aG kvm $USER, then log in again",
        )
    try:
        known = json.loads((machine.paths.state / "accelerator.json").read_text())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        known, boot = {}, ""
    if known.get("boot_id") != boot or not isinstance(known, dict):
        return Finding("accelerator", "ok", "/dev/kvm is usable; hero up proves it with a guest")
    proved = known.get("accelerator") or known
    if proved.get("name") == "kvm":
        return Finding("accelerator", "ok", "kvm, proved by a guest since this machine booted")
    return Finding(
        "accelerator",
        "warn",
        f"/dev/kvm does not run guests, emulation is used: {proved.get('detail', 'no detail')}",
        "nothing to do if this is a virtual machine without nested virtualization",
    )


def check_packages(machine: Machine) -> Finding:
    """The programs that building images needs."""
    path = f"{os.environ.get('PATH', '')}:{_PROGRAMS}"
    missing = [
        package
        for program, package in _IMAGE_PROGRAMS.items()
        if not shutil.which(program, path=path)
    ]
    if not missing:
        return Finding("packages", "ok", "all that building images needs is installed")
    return Finding(
        "packages",
        "warn",
        f"building images needs {', '.join(missing)}",
        f"sudo apt-get install {' '.join(missing)}",
    )


def check_home(machine: Machine) -> Finding:
    """The directory with everything in it."""
    home = machine.paths.home
    existing = next(d for d in (home, *home.parents) if d.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(
            "home",
            "fail",
            f"{existing} cannot be written by this user",
            f"sudo chown $USER {existing}, or set HERO_HOME to another directory",
        )
    if home.exists() and home.stat().st_mode & 0o077:
        loose = [p for p in (machine.paths.tls, machine.paths.state, machine.paths.sockets)
                 if p.exists() and p.stat().st_mode & 0o077]  # fmt: skip
        if loose:
            words = " ".join(map(str, loose))
            return Finding("home", "fail", f"others can look into {words}", f"chmod 700 {words}")
    return Finding("home", "ok", str(home))


def check_sockets(machine: Machine) -> Finding:
    """Whether the paths of sockets fit."""
    from hero.paths import _LONGEST_OWN_SOCKET, MAX_SOCKET_PATH

    length = len(os.fsencode(machine.paths.sockets / _LONGEST_OWN_SOCKET))
    if length > MAX_SOCKET_PATH:
        return Finding(
            "sockets",
            "fail",
            f"{machine.paths.sockets} is too long: the paths of its sockets would have {length} "
            f"bytes, and an address holds {MAX_SOCKET_PATH}",
            "set HERO_SOCKET_DIR to a shorter path, such as /run/hero",
        )
    return Finding("sockets", "ok", str(machine.paths.sockets))


def check_port(machine: Machine) -> Finding:
    """Whether the router has a port to listen on."""
    if answers(machine.paths.router_socket):
        return Finding(
            "port", "ok", f"the router listens on {', '.join(router_urls(machine.paths))}"
        )
    if listen := machine.settings.get("HERO_LISTEN"):
        return Finding("port", "ok", f"the router will listen on {listen}")
    problem = _bind_problem(443)
    if problem is None:
        return Finding("port", "ok", "443 is free")
    if problem == errno.EADDRINUSE:
        return Finding(
            "port",
            "fail",
            f"443 is in use by {_holder(443)}",
            "stop that, or choose another port: hero up --listen ssl:8443",
        )
    other = _bind_problem(9998)
    if other is None:
        return Finding(
            "port",
            "warn",
            "443 is not permitted to this user: a router started by hand will listen on 9998",
            "nothing to do for the systemd units, which may use 443; "
            "else sudo sysctl net.ipv4.ip_unprivileged_port_start=443",
        )
    return Finding(
        "port",
        "fail",
        f"443 is not permitted to this user, and 9998 is in use by {_holder(9998)}",
        "choose another port: hero up --listen ssl:8443",
    )


def check_memory(machine: Machine) -> Finding:
    """Whether a slice fits."""
    total = psutil.virtual_memory().total
    words = f"{total / _GIB:.1f} GiB"
    wanted = machine.settings.get(environment_name("slice-memory"))
    if wanted is None and total < 5 * _GIB:
        return Finding(
            "memory",
            "warn",
            f"{words}: no slice of 4 GiB fits beside the 1 GiB that is kept for the system",
            "hero up --slice-memory 512M, or as much as suits your VMs",
        )
    return Finding("memory", "ok", words)


def check_disk(machine: Machine) -> Finding:
    """Room for images and VMs."""
    home = machine.paths.home
    existing = next(d for d in (home, *home.parents) if d.exists())
    free = shutil.disk_usage(existing).free
    words = f"{free / _GIB:.1f} GiB free at {existing}"
    mend = "free some, or set HERO_HOME to a directory on a larger disk"
    if free < _GIB:
        return Finding("disk", "fail", words, mend)
    if free < 10 * _GIB:
        return Finding("disk", "warn", words, mend)
    return Finding("disk", "ok", words)


def check_clock(machine: Machine) -> Finding:
    """Whether the clock can be right: certificates have a beginning and an end."""
    now = time.time()
    built = Path(__file__).stat().st_mtime
    if now < built - 86400:
        return Finding(
            "clock",
            "fail",
            f"it says {datetime.now(UTC):%Y-%m-%d}, before this Hero was installed",
            "sudo timedatectl set-ntp true",
        )
    synchronized = Path("/run/systemd/timesync/synchronized").exists()
    if Path("/run/systemd/timesync").exists() and not synchronized:
        return Finding(
            "clock", "warn", "it is not synchronized yet", "sudo timedatectl set-ntp true"
        )
    return Finding("clock", "ok", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")


def check_certificate(machine: Machine) -> Finding:
    """This node's certificate."""
    from hero.identity.errors import NoIdentity
    from hero.identity.node import NodeIdentity

    worker = machine.settings.get(MODE) == "worker"
    try:
        identity = NodeIdentity.load(machine.paths.tls)
    except NoIdentity as error:
        if worker:
            return Finding("certificate", "fail", error.detail, "hero join TOKEN")
        return Finding("certificate", "ok", "none yet; hero up makes one")
    except HeroError as error:
        return Finding("certificate", "fail", error.detail, error.hint)
    left = identity.not_after - datetime.now(UTC)
    until = f"{identity.not_after:%Y-%m-%d %H:%M} UTC"
    if left.total_seconds() <= 0:
        return Finding(
            "certificate",
            "warn",
            f"expired on {until}; a running node renews it by itself",
            "hero up -d, with an explorer in reach",
        )
    return Finding("certificate", "ok", f"{identity.node_sid}, good until {until}")


CHECKS: tuple[Callable[[Machine], Finding], ...] = (
    check_python,
    check_qemu,
    check_accelerator,
    check_packages,
    check_home,
    check_sockets,
    check_port,
    check_memory,
    check_disk,
    check_clock,
    check_certificate,
)


def run_checks(settings: Mapping[str, str]) -> list[Finding]:
    """What every check finds. One that cannot be made is a failure, not the end."""
    machine = Machine(settings, HeroPaths.from_environment(settings))
    findings = []
    for check in CHECKS:
        try:
            findings.append(check(machine))
        except OSError as error:
            findings.append(Finding(check.__name__.removeprefix("check_"), "fail", str(error)))
    return findings


def _bind_problem(port: int) -> int | None:
    """Why *port* cannot be bound, as an errno; None where it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
            probe.listen(1)
        except OSError as error:
            return error.errno
    return None


def _holder(port: int) -> str:
    """Who listens on *port*, as far as this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and getattr(connection.laddr, "port", None) == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another process"
