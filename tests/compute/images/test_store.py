"""The store of images."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from hero.compute.errors import ImageUnavailable
from hero.compute.guest import ImageFiles
from hero.compute.images.store import ImageStore, Recipe
from hero.compute.interfaces import IImageStore, Progress
from hero.errors import NotFound


class ImageStoreTests(TestCase):
    """`ImageStore`, with a recipe whose builds end when the test says so."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.builds: list[Deferred[None]] = []
        self.reports: list[Progress] = []
        recipe = Recipe("tiny", "a file", self.load, self.build)
        self.store = ImageStore(Clock(), self.directory, (recipe,))

    def load(self, directory: Path) -> ImageFiles | None:
        disk = directory / "disk"
        return ImageFiles(name="tiny", disk=disk, digest="d") if disk.exists() else None

    async def build(self, reactor: Any, directory: Path, progress: Progress) -> ImageFiles:
        self.reports.append(progress)
        done: Deferred[None] = Deferred()
        self.builds.append(done)
        await done
        os.makedirs(directory, exist_ok=True)
        (directory / "disk").write_bytes(b"1234")
        image = self.load(directory)
        assert image is not None
        return image

    def get(self) -> Deferred[ImageFiles]:
        return Deferred.fromCoroutine(self.store.get("tiny"))

    def described(self) -> Any:
        [image] = self.successResultOf(Deferred.fromCoroutine(self.store.list()))
        return image

    def test_interface(self) -> None:
        """It has the methods of `IImageStore`."""
        verifyObject(IImageStore, self.store)

    def test_builds_once(self) -> None:
        """Those who ask for a missing image share one build, and later ones need none."""
        self.assertEqual(self.described().state, "absent")
        waiting = [self.get(), self.get()]
        self.assertEqual(self.described().state, "building")
        [build] = self.builds
        build.callback(None)
        first, second = (self.successResultOf(each) for each in waiting)
        self.assertEqual(first, second)
        self.assertEqual(self.successResultOf(self.get()), first)
        self.assertEqual(len(self.builds), 1)
        image = self.described()
        self.assertEqual((image.state, image.size, image.digest), ("ready", 4, "d"))

    def test_failure(self) -> None:
        """A failed build fails for all who wait, is told in the list, and is tried anew."""
        waiting = [self.get(), self.get()]
        self.builds[0].errback(ImageUnavailable("no network"))
        for each in waiting:
            self.failureResultOf(each, ImageUnavailable)
        image = self.described()
        self.assertEqual((image.state, image.error), ("failed", "no network"))
        again = self.get()
        self.builds[1].callback(None)
        self.successResultOf(again)
        self.assertEqual(self.described().state, "ready")

    def test_surprise(self) -> None:
        """An error nobody expected is logged, and told as a build that failed."""
        waiting = self.get()
        self.builds[0].errback(ZeroDivisionError("division by zero"))
        self.failureResultOf(waiting, ImageUnavailable)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_built_again(self) -> None:
        """While an image is built again, and when that fails, the one there is goes on."""
        waiting = self.get()
        self.builds[0].callback(None)
        image = self.successResultOf(waiting)
        again = Deferred.fromCoroutine(self.store.build("tiny", lambda *_: None))
        self.assertEqual(self.successResultOf(self.get()), image)
        self.builds[1].errback(ImageUnavailable("no network"))
        self.failureResultOf(again, ImageUnavailable)
        self.assertEqual(self.successResultOf(self.get()), image)

    def test_caller_goes_away(self) -> None:
        """A caller who goes away does not take the others' build with him."""
        gone, waiting = self.get(), self.get()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.builds[0].callback(None)
        self.successResultOf(waiting)

    def test_progress(self) -> None:
        """Everybody who waits is told how far it is, those who join at once."""
        first: list[float] = []
        second: list[float] = []
        one = Deferred.fromCoroutine(self.store.build("tiny", lambda f, _: first.append(f)))
        self.reports[0](0.5, "half")
        two = Deferred.fromCoroutine(self.store.build("tiny", lambda f, _: second.append(f)))
        self.reports[0](0.75, "more")
        self.builds[0].callback(None)
        self.successResultOf(one)
        self.successResultOf(two)
        self.assertEqual(first, [0.0, 0.5, 0.75])
        self.assertEqual(second, [0.5, 0.75])

    def test_unknown(self) -> None:
        """An image without a recipe is not found; the hint has those there are."""
        failure = self.failureResultOf(Deferred.fromCoroutine(self.store.get("big")), NotFound)
        self.assertIn("tiny", failure.value.hint)
