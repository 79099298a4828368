"""Downloading packages."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from hero.compute.errors import ImageUnavailable
from hero.compute.images import packages
from hero.compute.images.packages import PackageSource
from hero.compute.programs import ProgramMissing, ProgramResult


class FakeApt:
    """apt's programs, for one distribution. `current` is whether the system's lists are."""

    def __init__(self) -> None:
        self.shows = {"kernel": "Package: kernel\nDepends: kernel-6.1 (= 1), kmod | module-tools\n"}
        self.current = True
        self.online = True
        self.missing: set[str] = set()
        self.ran: list[str] = []

    async def run(self, reactor: Any, argv: Any, *, directory: Path, **_: Any) -> ProgramResult:
        if argv[0] in self.missing:
            raise ProgramMissing(argv[0])
        words = [word for word in argv if word in ("show", "download", "update", "-x")]
        self.ran += words
        lists = [Path(word.partition("=")[2]) for word in argv if "Dir::State::lists=" in word]
        if words == ["show"]:
            text = self.shows.get(argv[-1])
            return ProgramResult(100 if text is None else 0, text or "", "")
        if words == ["update"] and not self.online:
            return ProgramResult(0, "", "W: Failed to fetch\nW: Some index files are missing")
        if words == ["update"]:
            (lists[0] / "debian_Packages.lz4").touch()
        if words == ["download"]:
            if not (self.current or lists):
                return ProgramResult(100, "", "E: 404  Not Found")
            if not self.online:
                return ProgramResult(100, "", "E: Unable to locate package")
            (directory / "a.deb").write_bytes(b"")
        return ProgramResult(0, "", "")


class PackageSourceTests(TestCase):
    """`PackageSource`."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.apt = FakeApt()
        self.patch(packages, "run_program", self.apt.run)
        self.source = PackageSource(Clock(), self.directory)

    async def test_depends(self) -> None:
        """Versions and alternatives are taken apart; what does not exist is None."""
        self.assertEqual(
            await self.source.depends("kernel"), ["kernel-6.1", "kmod", "module-tools"]
        )
        self.assertIsNone(await self.source.depends("other"))
        self.assertEqual(await self.source.first_available(["other", "kernel"]), "kernel")

    async def test_unpack(self) -> None:
        """Packages are downloaded with the system's lists where that works."""
        await self.source.unpack(["kernel"])
        self.assertEqual(self.apt.ran, ["download", "-x"])

    async def test_lists_out_of_date(self) -> None:
        """Where the system's lists lead nowhere, new ones are fetched, without being root."""
        self.apt.current = False
        await self.source.unpack(["kernel"])
        self.assertEqual(self.apt.ran, ["download", "update", "download", "-x"])

    async def test_offline(self) -> None:
        """Without a network the error says what apt-get said."""
        self.apt.current = self.apt.online = False
        with self.assertRaises(ImageUnavailable) as caught:
            await self.source.unpack(["kernel"])
        self.assertIn("Failed to fetch", caught.exception.detail)

    async def test_no_apt(self) -> None:
        """A system without apt is told what it lacks."""
        self.apt.missing.add("apt-cache")
        with self.assertRaises(ImageUnavailable) as caught:
            await self.source.depends("kernel")
        self.assertIn("apt-cache", caught.exception.detail)
