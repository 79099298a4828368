"""What `QemuHypervisor` keeps on disk, without running anything; the suite is run elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from twisted.trial.unittest import TestCase

from hero.compute.guest import GuestSpec, GuestState, ImageFiles, StopReason
from hero.compute.hypervisor import qemu
from hero.compute.hypervisor.accelerator import UNPROVED
from hero.compute.hypervisor.errors import DiskFailed, GuestNotStarted
from hero.compute.hypervisor.process import start_ticks
from hero.compute.hypervisor.qemu import QemuHypervisor
from hero.compute.hypervisor.run_record import RunRecord, this_boot, write_record


class Impostor(LineOnlyReceiver):
    """Speaks QMP as far as its form goes."""

    delimiter = b"\n"

    def connectionMade(self) -> None:
        self.sendLine(b'{"QMP": {}}')

    def lineReceived(self, line: bytes) -> None:
        number = line.rpartition(b":")[2].strip(b" }")
        self.sendLine(b'{"event": "SHUTDOWN", "data": [1]}')
        self.sendLine(b'{"return": 7, "id": ' + number + b"}")


class QemuDirectoryTests(TestCase):
    """Guests whose processes are of no matter, or are something else."""

    timeout = 30

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.hypervisor = QemuHypervisor(reactor, self.directory, UNPROVED)
        self.addCleanup(self.hypervisor.close)

    def spec(self, sid: str = "vm-1") -> GuestSpec:
        return GuestSpec(
            sid=sid,
            name="one",
            vcpus=1,
            memory=2**27,
            disk=2**20,
            image=ImageFiles(name="none"),
            directory=self.directory / sid,
        )

    def make(self, sid: str, **changes: Any) -> Path:
        directory = self.directory / sid
        directory.mkdir()
        write_record(directory, RunRecord(sid=sid, **changes))
        return directory

    def make_running(self, sid: str) -> int:
        """A guest whose process only sleeps; the answer is its id."""
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.make(
            sid,
            boot_id=this_boot(),
            pid=process.pid,
            start_ticks=start_ticks(process.pid),
            reason=None,
            over=False,
        )
        return process.pid

    async def test_started_a_moment_ago(self) -> None:
        """A guest that was started by a service killed at once is found, not started again."""
        run = str(uuid.uuid4())
        sleep = "import time; time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", sleep, "-uuid", run])  # noqa: ASYNC220
        self.addCleanup(process.wait)
        self.make("vm-1", uuid=run, boot_id=this_boot(), reason=None, over=False)
        seen = (await self.hypervisor.observe())["vm-1"]
        self.assertEqual((seen.state, seen.pid), (GuestState.RUNNING, process.pid))
        await self.hypervisor.kill("vm-1")

    async def test_copy_of_a_directory(self) -> None:
        """Somebody's copy of a guest's directory is another guest, not the same."""
        shutil.copytree(self.make("vm-1"), self.directory / "vm-1.bak")
        self.assertEqual(set(await self.hypervisor.observe()), {"vm-1", "vm-1.bak"})
        await self.hypervisor.remove("vm-1")
        self.assertEqual([path.name for path in self.directory.iterdir()], ["vm-1.bak"])

    async def test_directory_without_a_record(self) -> None:
        """What a start leaves that was killed before it wrote anything goes with the guest."""
        (self.directory / "vm-1").mkdir()
        (self.directory / "vm-1/guest.json.new").touch()
        await self.hypervisor.remove("vm-1")
        self.assertEqual(list(self.directory.iterdir()), [])

    async def test_full_disk(self) -> None:
        """A guest that cannot be recorded is refused with the system's words."""

        def full(directory: Path, record: RunRecord) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))

        self.patch(qemu, "write_record", full)
        with self.assertRaises(DiskFailed) as caught:
            await self.hypervisor.create_disk(self.spec())
        self.assertIn("No space left on device", caught.exception.detail)
        with self.assertRaises(GuestNotStarted) as failed:
            await self.hypervisor.start(self.spec())
        self.assertIn("No space left on device", failed.exception.detail)

    async def test_console_that_cannot_be_trimmed(self) -> None:
        """It keeps nobody from seeing the guests."""
        (self.make("vm-1") / "console.log").mkdir()
        self.assertEqual(set(await self.hypervisor.observe()), {"vm-1"})

    async def test_something_else_answers(self) -> None:
        """Nonsense from one guest's process keeps nobody from seeing the others."""
        self.make_running("vm-1")
        self.make("vm-2")
        for name in ("qmp.sock", "qmp-spare.sock"):
            path = str(self.directory / "vm-1" / name)
            port = reactor.listenUNIX(path, Factory.forProtocol(Impostor))
            self.addCleanup(port.stopListening)
        seen = await self.hypervisor.observe()
        self.assertEqual(seen["vm-1"].state, GuestState.RUNNING)
        self.assertEqual(seen["vm-2"].state, GuestState.STOPPED)

    async def test_killed_though_it_was_not_found_at_first(self) -> None:
        """A guest that could not be taken hold of is not forgotten while it runs."""
        pid = self.make_running("vm-1")

        def no_descriptor(pid: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        none_left = self.patch(os, "pidfd_open", no_descriptor)
        with self.assertRaises(OSError):
            await self.hypervisor.stop("vm-1", 0.0)
        none_left.restore()
        self.assertEqual(await self.hypervisor.stop("vm-1", 0.0), StopReason.KILLED)
        self.assertIsNone(start_ticks(pid))
