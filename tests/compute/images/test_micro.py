"""The micro image on disk."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from hero.compute.errors import ImageUnavailable
from hero.compute.images import micro
from hero.compute.images.packages import PackageSource

PACKAGES = {
    "linux-image-virtual": ["linux-image-6.8-generic"],
    "linux-image-6.8-generic": ["kmod", "linux-modules-6.8-generic"],
    "linux-modules-6.8-generic": [],
}


class FakeSource(PackageSource):
    """Packages of a made-up distribution, which has `shows` and unpacks `files`."""

    shows = PACKAGES
    files = ("boot/vmlinuz-6.8", "usr/bin/busybox")
    refreshed = 0

    async def depends(self, package: str) -> list[str] | None:
        return self.shows.get(package)

    async def refresh(self) -> None:
        type(self).refreshed += 1

    async def unpack(self, packages: list[str]) -> Path:
        type(self).unpacked = packages  # type: ignore[attr-defined]
        root = self._directory / "root"
        for name in self.files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(name.encode())
        return root


class MicroTests(TestCase):
    """`build_micro` and `load_micro`."""

    timeout = 20

    def setUp(self) -> None:
        self.images = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.images)
        self.directory = self.images / "micro"
        self.source = type("Source", (FakeSource,), {})
        self.patch(micro, "PackageSource", self.source)
        self.progress: list[float] = []

    async def build(self) -> str:
        image = await micro.build_micro(
            reactor, self.directory, lambda fraction, _: self.progress.append(fraction)
        )
        return image.digest

    async def test_build(self) -> None:
        """The kernel, its modules and busybox become an image; equal packages an equal one."""
        self.assertIsNone(micro.load_micro(self.directory))
        digest = await self.build()
        self.assertEqual(
            self.source.unpacked,  # type: ignore[attr-defined]
            ["linux-image-6.8-generic", "linux-modules-6.8-generic", "busybox-static"],
        )
        image = micro.load_micro(self.directory)
        assert image is not None and image.kernel is not None
        self.assertEqual(image.kernel.read_bytes(), b"boot/vmlinuz-6.8")
        self.assertEqual(await self.build(), digest)
        self.assertEqual(self.progress[-1], 1.0)
        self.assertEqual(sorted(self.progress[:4]), self.progress[:4])
        self.assertEqual([path.name for path in self.images.iterdir()], ["micro"])

    async def test_failure_leaves_nothing(self) -> None:
        """A build that fails leaves the older image, and no other trace."""
        digest = await self.build()
        self.source.files = ("usr/bin/busybox",)  # type: ignore[attr-defined]
        with self.assertRaises(ImageUnavailable):
            await self.build()
        image = micro.load_micro(self.directory)
        assert image is not None
        self.assertEqual(image.digest, digest)
        self.assertEqual([path.name for path in self.images.iterdir()], ["micro"])

    async def test_incomplete(self) -> None:
        """An image of which somebody deleted a part is no image, and is built again."""
        digest = await self.build()
        (self.directory / "vmlinuz").unlink()
        self.assertIsNone(micro.load_micro(self.directory))
        self.assertEqual(await self.build(), digest)

    async def test_leftovers(self) -> None:
        """What a build left that was killed is swept away by the next."""
        (self.images / ".building-micro-x/root").mkdir(parents=True)
        await self.build()
        self.assertEqual([path.name for path in self.images.iterdir()], ["micro"])

    async def test_no_kernel(self) -> None:
        """A distribution without a kernel that we know is told what was looked for."""
        self.source.shows = {}  # type: ignore[attr-defined]
        with self.assertRaises(ImageUnavailable) as caught:
            await self.build()
        self.assertIn("linux-image-cloud-amd64", caught.exception.detail)
        self.assertEqual(self.source.refreshed, 1)

    def test_half_made(self) -> None:
        """Files without a manifest, or with that of another version, are no image."""
        self.directory.mkdir()
        (self.directory / "vmlinuz").write_bytes(b"")
        self.assertIsNone(micro.load_micro(self.directory))
        for manifest in ("", "{}", json.dumps({"version": 0, "digest": ""})):
            (self.directory / "image.json").write_text(manifest)
            self.assertIsNone(micro.load_micro(self.directory))
