"""QEMU's arguments."""

from __future__ import annotations

import itertools
from pathlib import Path

import attrs
from twisted.trial.unittest import TestCase

from hero.compute.guest import GuestSpec, ImageFiles
from hero.compute.hypervisor.qemu_command import (
    disk_command,
    escaped,
    guest_command,
    probe_command,
)

IMAGE = ImageFiles(
    name="micro", kernel=Path("/i/vmlinuz"), initrd=Path("/i/initrd"), cmdline="console=ttyS0"
)
SPEC = GuestSpec(
    sid="vm-1",
    name="web",
    vcpus=2,
    memory=256 * 1024 * 1024,
    disk=1024,
    image=IMAGE,
    directory=Path("/vms/vm-1"),
)


def option(argv: list[str], name: str) -> list[str]:
    """The values given for *name*."""
    return [value for key, value in itertools.pairwise(argv) if key == name]


class GuestCommandTests(TestCase):
    """`guest_command`."""

    def test_hardware(self) -> None:
        """The guest gets the processors and the memory of its spec."""
        argv = guest_command(SPEC, "u", "tcg")
        self.assertEqual(option(argv, "-smp"), ["2"])
        self.assertEqual(option(argv, "-m"), ["size=256M"])
        self.assertEqual(option(argv, "-uuid"), ["u"])

    def test_name_is_told(self) -> None:
        """The guest learns its name from the kernel's command line."""
        [line] = option(guest_command(SPEC, "u", "tcg"), "-append")
        self.assertEqual(line, "console=ttyS0 hero.name=web")

    def test_closed(self) -> None:
        """Nothing listens on a network, nothing comes from files of the user's, QEMU is caged."""
        argv = guest_command(SPEC, "u", "tcg")
        self.assertFalse([value for value in argv if "tcp:" in value or "host=" in value])
        self.assertEqual(option(argv, "-nic"), ["none"])
        self.assertEqual(option(argv, "-display"), ["none"])
        self.assertIn("-nodefaults", argv)
        self.assertIn("-no-user-config", argv)
        self.assertIn("spawn=deny", option(argv, "-sandbox")[0])

    def test_accelerators(self) -> None:
        """With KVM the guest sees the host's processor, which nothing else can give."""
        self.assertEqual(option(guest_command(SPEC, "u", "kvm"), "-cpu"), ["host"])
        self.assertEqual(option(guest_command(SPEC, "u", "tcg"), "-cpu"), [])

    def test_boots_its_disk(self) -> None:
        """An image without a kernel leaves booting to the firmware."""
        image = ImageFiles(name="debian", disk=Path("/i/disk.qcow2"))
        argv = guest_command(attrs.evolve(SPEC, image=image), "u", "tcg")
        self.assertFalse({"-kernel", "-initrd", "-append"} & set(argv))

    def test_paths_are_short(self) -> None:
        """Sockets are named relative to the guest's directory, however long its path."""
        argv = guest_command(SPEC, "u", "tcg")
        for chardev in option(argv, "-chardev"):
            self.assertNotIn("/", chardev)

    def test_commas(self) -> None:
        """A comma cannot smuggle an option in."""
        self.assertEqual(escaped("a,b"), "a,,b")
        argv = guest_command(attrs.evolve(SPEC, sid="x,process=y"), "u", "tcg")
        self.assertEqual(option(argv, "-name"), ["guest=x,,process=y"])


class OtherCommandTests(TestCase):
    """`probe_command` and `disk_command`."""

    def test_probe(self) -> None:
        """The probe says so on its kernel's command line, and ends on a panic."""
        [line] = option(probe_command(IMAGE, "kvm"), "-append")
        self.assertIn("hero.probe=1", line)
        self.assertIn("panic=-1", line)

    def test_disk(self) -> None:
        """A disk lies over its image's, or over nothing."""
        self.assertEqual(
            disk_command(7, Path("/i/d"), "out")[-6:], ["-b", "/i/d", "-F", "qcow2", "out", "7"]
        )
        self.assertNotIn("-b", disk_command(7, None, "out"))
