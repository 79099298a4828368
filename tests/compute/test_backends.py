"""What has to be known before the first guest starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hero.compute.backends import ImagesAfter
from hero.compute.guest import ImageFiles
from hero.compute.hypervisor.errors import HypervisorMissing
from hero.compute.images.store import ImageStore, Recipe


class ImagesAfterTests(SynchronousTestCase):
    """`ImagesAfter` around a store whose image is ready."""

    def setUp(self) -> None:
        files = ImageFiles(name="micro")

        async def build(reactor: Any, directory: Path, progress: Any) -> ImageFiles:
            return files

        recipe = Recipe("micro", "Nothing", lambda directory: files, build)
        store = ImageStore(Clock(), Path("/nowhere"), (recipe,))
        self.preparations: list[Deferred[None]] = []
        self.images = ImagesAfter(store, self.prepare)

    def prepare(self) -> Deferred[None]:
        self.preparations.append(Deferred())
        return self.preparations[-1]

    def ask(self) -> Deferred[ImageFiles]:
        return Deferred.fromCoroutine(self.images.get("micro"))

    def test_one_preparation(self) -> None:
        """All who ask wait for the same one, and later ones for none."""
        first, second = self.ask(), self.ask()
        self.assertNoResult(second)
        self.preparations[0].callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.ask())
        self.assertEqual(len(self.preparations), 1)

    def test_preparation_that_fails(self) -> None:
        """It keeps no image back, is told, and is tried again."""
        first = self.ask()
        self.preparations[0].errback(HypervisorMissing("no QEMU here"))
        self.successResultOf(first)
        self.assertEqual(self.images.problem, "no QEMU here")
        second = self.ask()
        self.preparations[1].callback(None)
        self.successResultOf(second)
        self.assertIsNone(self.images.problem)

    def test_preparation_whose_outcome_cannot_be_kept(self) -> None:
        """A full disk keeps no image back either."""
        first = self.ask()
        self.preparations[0].errback(OSError(28, "No space left on device"))
        self.successResultOf(first)
        self.assertIn("No space left", self.images.problem or "")
