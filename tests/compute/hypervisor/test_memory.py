"""The hypervisor in memory keeps the promises that real ones keep."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from hero.compute.guest import GuestSpec, ImageFiles
from hero.testing import MemoryHypervisor, make_ihypervisor_tests


class MemoryFixture:
    """Guests in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._clock = Clock()
        self.hypervisor = MemoryHypervisor(self._clock, directory)

    def spec(self, sid: str, name: str) -> GuestSpec:
        return GuestSpec(
            sid=sid,
            name=name,
            vcpus=1,
            memory=128 * 1024 * 1024,
            disk=1024 * 1024,
            image=ImageFiles(name="micro"),
            directory=self._directory / sid,
        )

    def reopen(self) -> None:
        self.hypervisor.close()
        self.hypervisor = MemoryHypervisor(self._clock, self._directory)

    async def reaches_console(self, sid: str, text: bytes) -> None:
        assert text in self.hypervisor.console_path(sid).read_bytes()

    async def power_off(self, sid: str) -> None:
        self.hypervisor.power_off(sid)

    async def crash(self, sid: str) -> None:
        self.hypervisor.crash(sid)

    async def make_deaf(self, sid: str) -> None:
        self.hypervisor.obedient = False


async def make_fixture(test: TestCase) -> MemoryFixture:
    directory = Path(tempfile.mkdtemp())
    test.addCleanup(shutil.rmtree, directory)
    return MemoryFixture(directory)


class MemoryHypervisorTests(make_ihypervisor_tests(make_fixture)):  # type: ignore[misc]
    """`MemoryHypervisor` against the suite."""
