"""Finding out what runs guests, with programs in QEMU's place."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hero.compute.guest import GuestSpec, ImageFiles
from hero.compute.hypervisor import accelerator
from hero.compute.hypervisor.accelerator import (
    UNPROVED,
    prove_accelerator,
    remembered_accelerator,
)
from hero.compute.hypervisor.errors import HypervisorMissing
from hero.compute.hypervisor.qemu import QemuHypervisor
from hero.compute.model import Accelerator

IMAGE = ImageFiles(name="micro", kernel=Path("/i/vmlinuz"))


class AcceleratorTests(TestCase):
    """`prove_accelerator`."""

    timeout = 20

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.device = self.directory / "kvm"
        self.device.write_bytes(b"")
        self.patch(accelerator, "_KVM", self.device)
        self.bin = self.directory / "bin"
        self.bin.mkdir()
        self.patch(os, "environ", {"PATH": f"{self.bin}"})

    def qemu(self, script: str) -> None:
        """Let QEMU be a shell script, which counts how often it is run."""
        program = self.bin / "qemu-system-x86_64"
        program.write_text(f"#!/bin/sh\necho run >>{self.directory}/runs\n{script}\n")
        program.chmod(0o700)

    def runs(self) -> int:
        return len((self.directory / "runs").read_text().splitlines())

    async def prove(self) -> Accelerator:
        return await prove_accelerator(reactor, self.directory, IMAGE, self.device)

    async def test_works(self) -> None:
        """KVM is used once a guest printed something with it, and not tried again."""
        self.qemu("echo 'hero micro: probe ready'")
        for _ in range(2):
            found = await self.prove()
            self.assertEqual((found.name, found.proved), ("kvm", True))
        self.assertEqual(self.runs(), 1)
        self.assertEqual(remembered_accelerator(self.directory), found)

    async def test_hangs(self) -> None:
        """A guest that prints nothing is given up after a while, and after three not tried."""
        self.patch(accelerator, "_LIMIT", 0.05)
        self.qemu("exec /bin/sleep 60")
        for _ in range(4):
            found = await self.prove()
            self.assertEqual((found.name, found.proved), ("tcg", False))
            self.assertIn("printed nothing", found.detail)
        self.assertEqual(remembered_accelerator(self.directory), found)

    async def test_busy_at_first(self) -> None:
        """A guest that was only slow, once, does not cost the machine its KVM."""
        self.patch(accelerator, "_LIMIT", 0.05)
        self.qemu("exec /bin/sleep 60")
        await self.prove()
        self.assertIsNone(remembered_accelerator(self.directory))
        self.patch(accelerator, "_LIMIT", 10.0)
        self.qemu("echo 'hero micro: probe ready'")
        self.assertEqual((await self.prove()).name, "kvm")
        self.assertIsNotNone(remembered_accelerator(self.directory))

    async def test_garbage_is_no_memory(self) -> None:
        """A file that says nothing sensible is written anew."""
        self.qemu("echo 'hero micro: probe ready'")
        for content in ("[]", "{}", "not JSON"):
            (self.directory / "accelerator.json").write_text(content)
            self.assertIsNone(remembered_accelerator(self.directory))
        self.assertEqual((await self.prove()).name, "kvm")

    async def test_refused(self) -> None:
        """What QEMU says against KVM is told."""
        self.qemu("echo 'failed to set MSR' >&2; exit 1")
        self.assertIn("failed to set MSR", (await self.prove()).detail)

    async def test_ends_in_silence(self) -> None:
        """A guest that ends without a word proves nothing."""
        self.qemu("exit 0")
        self.assertEqual((await self.prove()).name, "tcg")

    async def test_no_device(self) -> None:
        """Without KVM nothing is tried, nor remembered: it may come."""
        self.device.unlink()
        self.assertIn(str(self.device), (await self.prove()).detail)
        self.assertIsNone(remembered_accelerator(self.directory))

    async def test_another_boot(self) -> None:
        """What was found before the machine was restarted counts for nothing."""
        self.qemu("echo 'hero micro: probe ready'")
        await self.prove()
        self.patch(accelerator, "this_boot", lambda: "another")
        self.assertIsNone(remembered_accelerator(self.directory))
        await self.prove()
        self.assertEqual(self.runs(), 2)

    async def test_missing(self) -> None:
        """Without QEMU, the package to install is named, here and when a guest is to start."""
        spec = GuestSpec(
            sid="vm-1",
            name="one",
            vcpus=1,
            memory=1,
            disk=1,
            image=IMAGE,
            directory=self.directory / "vm-1",
        )
        hypervisor = QemuHypervisor(reactor, self.directory, UNPROVED)
        with self.assertRaises(HypervisorMissing) as caught:
            await self.prove()
        self.assertIn("qemu-system-x86", caught.exception.hint or "")
        with self.assertRaises(HypervisorMissing) as caught:
            await hypervisor.start(spec)
        self.assertIn("qemu-utils", caught.exception.hint or "")
        (spec.directory / "disk.qcow2").write_bytes(b"")
        with self.assertRaises(HypervisorMissing) as caught:
            await hypervisor.start(spec)
        self.assertIn("qemu-system-x86", caught.exception.hint or "")
