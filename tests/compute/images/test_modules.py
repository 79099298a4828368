"""Kernel modules."""

from __future__ import annotations

import lzma
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from hero.compute.images.modules import load_modules


class LoadModulesTests(TestCase):
    """`load_modules`."""

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)

    def module(self, path: str, depends: str) -> bytes:
        data = b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lzma.compress(data) if path.endswith(".xz") else data)
        return data

    def test_needed_first(self) -> None:
        """A module comes after those it needs, however deep, and once."""
        self.module("lib/a/virtio_blk.ko", "virtio,virtio-ring")
        self.module("lib/b/virtio_net.ko", "virtio,net_failover")
        self.module("lib/b/net_failover.ko", "")
        self.module("lib/c/virtio.ko", "virtio_ring")
        self.module("lib/c/virtio_ring.ko", "")
        names = [m.filename for m in load_modules(self.root, ["virtio_blk", "virtio_net"])]
        self.assertEqual(
            names,
            ["virtio_ring.ko", "virtio.ko", "virtio_blk.ko", "net_failover.ko", "virtio_net.ko"],
        )

    def test_hyphens(self) -> None:
        """A file's hyphens are underscores in its module's name."""
        self.module("lib/virtio-rng.ko", "")
        self.assertEqual(
            [m.filename for m in load_modules(self.root, ["virtio_rng"])], ["virtio_rng.ko"]
        )

    def test_compressed(self) -> None:
        """A compressed module is unpacked."""
        data = self.module("lib/button.ko.xz", "")
        self.assertEqual([m.data for m in load_modules(self.root, ["button"])], [data])

    def test_built_in(self) -> None:
        """What is not there is taken to be part of the kernel."""
        self.assertEqual(load_modules(self.root, ["evdev"]), [])
