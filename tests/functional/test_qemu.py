"""Real guests: QEMU against the suite, its micro image, and what only a real process can do."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import attrs
import psutil
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from hero.compute.guest import GuestObservation, GuestSpec, GuestState, ImageFiles, StopReason
from hero.compute.hypervisor.accelerator import UNPROVED, prove_accelerator
from hero.compute.hypervisor.errors import DiskFailed, GuestNotStarted
from hero.compute.hypervisor.process import start_ticks
from hero.compute.hypervisor.qemu import QemuHypervisor
from hero.compute.hypervisor.qmp import socket_address
from hero.compute.hypervisor.run_record import RunRecord, read_record, write_record
from hero.compute.images.store import ImageStore
from hero.compute.programs import run_program
from hero.testing import make_ihypervisor_tests
from tests.functional.cluster import built_images

#: Seconds for a guest to get to anything, on a machine that has much else to do.
LIMIT = 60.0


async def micro_image() -> ImageFiles:
    """The micro image, built once for all tests."""
    return await ImageStore(reactor, built_images()).get("micro")


async def until(condition: Any) -> None:
    """Wait until ``condition()`` is true."""
    deadline = reactor.seconds() + LIMIT
    while not condition():
        assert reactor.seconds() < deadline, "waited for too long"
        await deferLater(reactor, 0.02)


class QemuFixture:
    """Guests in a temporary directory, on QEMU."""

    def __init__(self, directory: Path, image: ImageFiles) -> None:
        self.directory = directory
        self.image = image
        self.hypervisor = QemuHypervisor(reactor, directory, UNPROVED)
        self.keyboards: list[Protocol] = []

    def spec(self, sid: str, name: str) -> GuestSpec:
        return GuestSpec(
            sid=sid,
            name=name,
            vcpus=1,
            memory=128 * 1024 * 1024,
            disk=64 * 1024 * 1024,
            image=self.image,
            directory=self.directory / sid,
        )

    def reopen(self) -> None:
        self.hypervisor.close()
        self.hypervisor = QemuHypervisor(reactor, self.directory, UNPROVED)

    async def reaches_console(self, sid: str, text: bytes) -> None:
        path = self.hypervisor.console_path(sid)
        await until(lambda: path.exists() and text in path.read_bytes())
        # The power button works a moment later, when the shell is there.
        await until(lambda: b"/root # " in path.read_bytes().rpartition(text)[2])

    async def power_off(self, sid: str) -> None:
        await self.type(sid, b"poweroff -f\n")
        await self.until_stopped(sid)

    async def crash(self, sid: str) -> None:
        seen = (await self.hypervisor.observe())[sid]
        assert seen.pid is not None
        os.kill(seen.pid, signal.SIGKILL)
        await self.until_stopped(sid)

    async def make_deaf(self, sid: str) -> None:
        await self.type(sid, b"killall acpid; echo de''af\n")
        path = self.hypervisor.console_path(sid)
        await until(lambda: b"deaf" in path.read_bytes())

    async def type(self, sid: str, data: bytes) -> None:
        """Type on the guest's console, and stay there: QEMU drops what it has not passed on."""
        with socket_address(self.directory / sid / "console.sock") as address:
            endpoint = UNIXClientEndpoint(reactor, address)
            protocol = await endpoint.connect(Factory.forProtocol(Protocol))
        protocol.transport.write(data)
        self.keyboards.append(protocol)

    async def until_stopped(self, sid: str) -> None:
        deadline = reactor.seconds() + LIMIT
        while (await self.hypervisor.observe())[sid].state is not GuestState.STOPPED:
            assert reactor.seconds() < deadline, "waited for too long"
            await deferLater(reactor, 0.02)


async def make_fixture(test: TestCase) -> QemuFixture:
    """A fixture whose guests are killed after the test."""
    image = await micro_image()
    directory = Path(tempfile.mkdtemp())
    fixture = QemuFixture(directory, image)

    async def clean_up() -> None:
        for sid in await fixture.hypervisor.observe():
            await fixture.hypervisor.remove(sid)
        fixture.hypervisor.close()
        shutil.rmtree(directory)

    test.addCleanup(lambda: Deferred.fromCoroutine(clean_up()))
    return fixture


class QemuHypervisorTests(make_ihypervisor_tests(make_fixture)):  # type: ignore[misc]
    """`QemuHypervisor` against the suite."""

    timeout = 180


class QemuTests(TestCase):
    """What the suite leaves open."""

    timeout = 180

    def setUp(self) -> Deferred[None]:
        async def prepare() -> None:
            self.fixture = await make_fixture(self)

        return Deferred.fromCoroutine(prepare())

    async def started(self, name: str = "one") -> GuestObservation:
        observation = await self.fixture.hypervisor.start(self.fixture.spec("vm-1", name))
        await self.fixture.reaches_console("vm-1", f"hero micro: {name} ready".encode())
        return observation

    async def seen(self) -> tuple[GuestState, StopReason | None]:
        observation = (await self.fixture.hypervisor.observe())["vm-1"]
        return observation.state, observation.reason

    async def test_outlives_us(self) -> None:
        """A guest goes on when the process that started it is killed, and is found by another."""
        self.fixture.hypervisor.close()
        self.assertEqual(await start_elsewhere(self.fixture), -signal.SIGKILL)
        self.fixture.reopen()
        self.assertEqual(await self.seen(), (GuestState.RUNNING, None))
        await self.fixture.reaches_console("vm-1", b"hero micro: one ready")
        self.assertEqual(await self.fixture.hypervisor.stop("vm-1", 30.0), StopReason.STOPPED)

    async def test_powered_off_while_nobody_watched(self) -> None:
        """The reason of a guest that ended in our absence is known afterwards."""
        started = await self.started()
        self.fixture.hypervisor.close()
        log = self.fixture.hypervisor.console_path("vm-1")
        await self.fixture.type("vm-1", b"(sleep 0.5; poweroff -f) & echo go''ne\n")
        await until(lambda: b"gone" in log.read_bytes())
        await deferLater(reactor, 2.0)
        self.fixture.reopen()
        await self.fixture.until_stopped("vm-1")
        self.assertEqual(await self.seen(), (GuestState.STOPPED, StopReason.GUEST_SHUTDOWN))
        self.assertIsNone(start_ticks(started.pid or 0))

    async def test_killed_while_nobody_watched(self) -> None:
        """A guest whose process died in our absence crashed; its process id proves nothing."""
        started = await self.started()
        self.fixture.hypervisor.close()
        assert started.pid is not None
        os.kill(started.pid, signal.SIGKILL)
        await until(lambda: start_ticks(started.pid or 0) is None)
        directory = self.fixture.directory / "vm-1"
        record = read_record(directory)
        write_record(directory, attrs.evolve(record, pid=os.getpid()))
        self.fixture.reopen()
        self.assertEqual(await self.seen(), (GuestState.STOPPED, StopReason.CRASHED))

    async def test_before_the_machine_was_restarted(self) -> None:
        """A run of an earlier boot is over, whatever its process id is used for now."""
        directory = self.fixture.directory / "vm-1"
        directory.mkdir()
        pid = os.getpid()
        record = RunRecord(
            sid="vm-1", pid=pid, start_ticks=start_ticks(pid), reason=None, over=False
        )
        write_record(directory, record)
        self.assertEqual(await self.seen(), (GuestState.STOPPED, StopReason.HOST_REBOOT))

    async def test_started_and_not_yet_recorded(self) -> None:
        """A guest whose start we did not live to record is found by QEMU's own pid file."""
        started = await self.started()
        self.fixture.hypervisor.close()
        directory = self.fixture.directory / "vm-1"
        record = read_record(directory)
        write_record(directory, attrs.evolve(record, pid=None, start_ticks=None))
        self.fixture.reopen()
        seen = (await self.fixture.hypervisor.observe())["vm-1"]
        self.assertEqual((seen.state, seen.pid), (GuestState.RUNNING, started.pid))

    async def test_stopped_at_once(self) -> None:
        """A guest that still boots when it is asked to power off does so later."""
        await self.fixture.hypervisor.start(self.fixture.spec("vm-1", "one"))
        self.assertEqual(await self.fixture.hypervisor.stop("vm-1", 60.0), StopReason.STOPPED)

    async def test_panic(self) -> None:
        """A guest whose kernel panics is stopped, and that is why."""
        await self.started()
        await self.fixture.type("vm-1", b"echo c >/proc/sysrq-trigger\n")
        await self.fixture.until_stopped("vm-1")
        self.assertEqual(await self.seen(), (GuestState.STOPPED, StopReason.GUEST_PANIC))

    async def test_reboot(self) -> None:
        """A guest that reboots itself runs on in the same process."""
        started = await self.started()
        await self.fixture.type("vm-1", b"reboot -f\n")
        log = self.fixture.hypervisor.console_path("vm-1")
        await until(lambda: log.read_bytes().count(b"hero micro: one ready") == 2)
        seen = (await self.fixture.hypervisor.observe())["vm-1"]
        self.assertEqual((seen.state, seen.pid), (GuestState.RUNNING, started.pid))

    async def test_own_disk(self) -> None:
        """A guest keeps what it writes to its disk, which is of the size asked for."""
        await self.started()
        log = self.fixture.hypervisor.console_path("vm-1")
        await self.fixture.type(
            "vm-1", b"cat /sys/block/vda/size; echo kept >/dev/vda; sync; echo wri''tten\n"
        )
        await until(lambda: b"written" in log.read_bytes())
        self.assertIn(b"131072", log.read_bytes())
        await self.fixture.hypervisor.stop("vm-1", 30.0)
        await self.started("two")
        await self.fixture.type("vm-1", b'head -c 4 /dev/vda; echo " on disk"\n')
        await until(lambda: b"kept on disk" in log.read_bytes())

    async def test_line_taken(self) -> None:
        """A guest whose line somebody else holds is commanded over the spare one."""
        await self.started()
        self.fixture.hypervisor.close()
        path = self.fixture.directory / "vm-1/qmp.sock"
        endpoint = UNIXClientEndpoint(reactor, str(path))
        protocol = await endpoint.connect(Factory.forProtocol(Protocol))
        self.addCleanup(protocol.transport.loseConnection)
        self.fixture.reopen()
        await self.fixture.hypervisor.pause("vm-1")
        self.assertEqual(await self.seen(), (GuestState.PAUSED, None))

    async def test_refused(self) -> None:
        """What QEMU says against its arguments is told, and the guest is stopped."""
        spec = attrs.evolve(self.fixture.spec("vm-1", "one"), vcpus=4096)
        with self.assertRaises(GuestNotStarted) as caught:
            await self.fixture.hypervisor.start(spec)
        self.assertIn("4096", caught.exception.detail)
        self.assertEqual(await self.seen(), (GuestState.STOPPED, StopReason.CRASHED))

    async def test_no_backing_file(self) -> None:
        """A disk over a file that is not there is an error that names it."""
        spec = self.fixture.spec("vm-1", "one")
        image = ImageFiles(name="lost", disk=Path("/nowhere/lost.qcow2"))
        with self.assertRaises(DiskFailed) as caught:
            await self.fixture.hypervisor.create_disk(attrs.evolve(spec, image=image))
        self.assertIn("lost.qcow2", caught.exception.detail)

    async def test_long_path(self) -> None:
        """A guest lives in a directory whose sockets no address could name."""
        self.fixture.hypervisor.close()
        self.fixture.directory = self.fixture.directory / ("d" * 120)
        self.fixture.directory.mkdir()
        self.fixture.reopen()
        await self.started()
        self.assertEqual(await self.fixture.hypervisor.stop("vm-1", 30.0), StopReason.STOPPED)

    async def test_no_listener(self) -> None:
        """A guest's process listens on no network."""
        started = await self.started()
        connections = psutil.Process(started.pid).net_connections(kind="inet")
        self.assertEqual(connections, [])

    async def test_accelerator(self) -> None:
        """What the proof finds boots a guest, and is remembered."""
        state = self.fixture.directory / "vm-1"
        state.mkdir()
        found = await prove_accelerator(reactor, state, self.fixture.image)
        self.assertIn(found.name, ("kvm", "tcg"))
        self.assertEqual(found.proved, found.name == "kvm")
        again = await prove_accelerator(reactor, state, ImageFiles(name="not used"))
        self.assertEqual(again, found)
        self.fixture.hypervisor.accelerator = found
        await self.started()


_STARTER = """
import os, signal, sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from hero.compute.guest import GuestSpec, ImageFiles
from hero.compute.hypervisor.accelerator import UNPROVED
from hero.compute.hypervisor.process import start_ticks
from hero.compute.hypervisor.qemu import QemuHypervisor

directory, kernel, initrd, cmdline = sys.argv[1:]
image = ImageFiles(name="micro", kernel=Path(kernel), initrd=Path(initrd), cmdline=cmdline)
spec = GuestSpec(
    sid="vm-1", name="one", vcpus=1, memory=2**27, disk=2**20, image=image,
    directory=Path(directory) / "vm-1",
)

async def main():
    await QemuHypervisor(reactor, Path(directory), UNPROVED).start(spec)
    os.kill(os.getpid(), signal.SIGKILL)

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
reactor.run()
"""


async def start_elsewhere(fixture: QemuFixture) -> int:
    """Start the guest vm-1 from a process that is killed then; the answer is its status."""
    image = fixture.image
    result = await run_program(
        reactor,
        [
            sys.executable,
            *("-c", _STARTER, str(fixture.directory)),
            *(str(image.kernel), str(image.initrd), image.cmdline),
        ],
        directory=Path(__file__).parents[2],
        environment=dict(os.environ),
        limit=LIMIT,
    )
    return result.status
