"""``twistd hero-compute``: the virtual machines of this node."""

from __future__ import annotations

import fcntl
import os
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.threads import deferToThreadPool
from twisted.python import usage

from hero import __version__
from hero.compute import backends
from hero.compute.heartbeat import HeartbeatSender
from hero.compute.membership import CertificateKeeper, Membership, advertised_address, connect
from hero.compute.node import NodeFacts, default_address, default_name, measure
from hero.compute.runtime import ComputeRuntime, utc_now
from hero.compute.slices import parse_size
from hero.errors import HeroError, InvalidConfiguration
from hero.identity.addresses import host_of_url, normalize_address
from hero.identity.node import NodeIdentity, ensure_master_identity
from hero.identity.tokens import TokenFile
from hero.paths import HeroPaths
from hero.settings import EnvironmentOptions
from hero.store import Database

_MIGRATIONS = Path(__file__).with_name("migrations")
_MODES = ("local", "master", "worker")


class Options(EnvironmentOptions):
    """Options of ``twistd hero-compute``."""

    synopsis = "[options]"
    longdesc = "Runs the virtual machines of this node."
    optParameters = [  # noqa: RUF012  Twisted reads it from the class
        ["mode", None, "local", "local, master or worker"],
        ["hypervisor", None, "qemu", "qemu, or memory: no real VMs"],
        ["node-name", None, None, "name of this node [default: its host name]"],
        ["slice-memory", None, "4G", "memory of one slice"],
        ["advertise-address", None, None, "address by which other nodes reach this one"],
        ["explorer-addresses", None, None, "explorers, separated by commas"],
    ]

    def postOptions(self) -> None:
        """Check what can be checked without looking at the machine."""
        super().postOptions()
        if self["hypervisor"] not in backends.NAMES:
            raise usage.UsageError(f"--hypervisor is one of {', '.join(backends.NAMES)}")
        if self["mode"] not in _MODES:
            raise usage.UsageError(f"--mode is one of {', '.join(_MODES)}")
        try:
            parse_size(self["slice-memory"])
        except ValueError as error:
            raise usage.UsageError(f"--slice-memory: {error}") from None


def makeService(options: Options) -> IService:
    """The compute service; exits with a message where it cannot be."""
    from twisted.internet import reactor

    try:
        return make_runtime(reactor, options)
    except HeroError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        raise SystemExit(f"hero-compute: {error.detail}{hint}") from None


def make_runtime(reactor: Any, options: Options) -> ComputeRuntime:
    """Put the service together. Raises `HeroError`."""
    paths = options.paths
    paths.ensure()
    identity = _identity(paths, options)
    facts = NodeFacts(
        sid=identity.node_sid,
        name=options["node-name"] or default_name(),
        version=__version__,
        boot_id=uuid.uuid4().hex,
        hypervisor=options["hypervisor"],
        started_at=utc_now(),
        vcpus=os.cpu_count() or 1,
        division=measure(paths.vms, parse_size(options["slice-memory"])),
    )
    lock = _hold_lock(paths.state / "compute.lock")
    # Becoming a daemon changes the process id; the lock itself is kept.
    reactor.callWhenRunning(_sign_lock, lock)
    runtime = ComputeRuntime(
        reactor=reactor,
        paths=paths,
        facts=facts,
        backend=backends.make(options["hypervisor"], reactor, paths),
        database=Database(reactor, f"sqlite:///{paths.state / 'compute.db'}", _MIGRATIONS),
        failed=lambda reason: _give_up(reactor, reason),
    )
    _add_membership(reactor, options, runtime)
    return runtime


def _add_membership(reactor: Any, options: Options, runtime: ComputeRuntime) -> None:
    paths = options.paths
    addresses = _explorer_addresses(options)
    explorers = [(address, connect(reactor, address, paths.tls)) for address in addresses]
    if not explorers:
        runtime.complaints.append(lambda: "no explorer is known: set EXPLORER_ADDRESSES")
    membership = Membership(
        status=runtime.status,
        vms=runtime.vms,
        advertise_address=lambda: advertised_address(
            options["advertise-address"], paths.run, default_address()
        ),
        tokens=TokenFile(paths.tokens_file) if options["mode"] == "worker" else None,
        state_file=paths.run / "node.json",
    )
    sender = HeartbeatSender(
        clock=reactor, explorers=explorers, report=membership.report, accept=membership.accept
    )
    sender.setServiceParent(runtime)  # type: ignore[no-untyped-call]
    runtime.on_change = sender.soon
    keeper = CertificateKeeper(
        clock=reactor,
        paths=paths,
        explorers=[explorer for _, explorer in explorers],
        in_thread=partial(deferToThreadPool, reactor, reactor.getThreadPool()),
    )
    keeper.setServiceParent(runtime)  # type: ignore[no-untyped-call]
    runtime.complaints += [lambda: sender.problem, lambda: keeper.problem]


def _explorer_addresses(options: Options) -> list[str]:
    configured = options["explorer-addresses"]
    if configured:
        return [part.strip() for part in configured.split(",") if part.strip()]
    return [] if options["mode"] == "worker" else [f"unix://{options.paths.explorer_socket}"]


def _identity(paths: HeroPaths, options: Options) -> NodeIdentity:
    if options["mode"] == "worker":
        return NodeIdentity.load(paths.tls)
    address = options["advertise-address"] or default_address()
    host = host_of_url(address) if "://" in address else normalize_address(address)
    return ensure_master_identity(paths, [host])


def _hold_lock(path: Path) -> int:
    """Keep every other process from the state that *path* is in, for as long as this one lives."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise InvalidConfiguration(
            f"another compute service uses {path.parent} (process {holder or 'unknown'})",
            hint="hero status names it; hero down stops it",
        ) from None
    return descriptor


def _sign_lock(descriptor: int) -> None:
    """Write into the lock file who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _give_up(reactor: Any, reason: str) -> None:
    """Stop the process with a message and the status 1."""
    print(f"hero-compute: {reason}", file=sys.stderr)
    reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
    reactor.callWhenRunning(reactor.stop)
