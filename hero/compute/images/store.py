"""The node's images: which there are, and one build at a time of each that is missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from hero.compute.errors import ImageUnavailable
from hero.compute.guest import ImageFiles
from hero.compute.images import micro
from hero.compute.interfaces import IImageStore, Progress
from hero.compute.model import Image
from hero.errors import HeroError, NotFound

_log = Logger()


@attrs.frozen
class Recipe:
    """How to make an image: *load* finds it in a directory, *build* puts it there."""

    name: str
    description: str
    load: Callable[[Path], ImageFiles | None]
    build: Callable[[Any, Path, Progress], Awaitable[ImageFiles]]


MICRO = Recipe(micro.NAME, micro.DESCRIPTION, micro.load_micro, micro.build_micro)


@attrs.define
class _Build:
    """A build under way and those who wait for it."""

    progress: list[Progress]
    waiting: list[Deferred[ImageFiles]]
    last: tuple[float, str] = (0.0, "starting")

    def report(self, fraction: float, message: str) -> None:
        self.last = (fraction, message)
        for progress in tuple(self.progress):
            progress(fraction, message)


@implementer(IImageStore)
class ImageStore:
    """Keeps each image of *recipes* in a directory of its own below *images_dir*."""

    def __init__(
        self, reactor: Any, images_dir: Path, recipes: tuple[Recipe, ...] = (MICRO,)
    ) -> None:
        self._reactor = reactor
        self._images_dir = images_dir
        self._recipes = {recipe.name: recipe for recipe in recipes}
        self._builds: dict[str, _Build] = {}
        self._errors: dict[str, str] = {}

    async def list(self) -> list[Image]:
        """Every image that there is a recipe for, ready or not."""
        return [self._describe(recipe) for recipe in self._recipes.values()]

    async def get(self, name: str) -> ImageFiles:
        """The image's files, built first where that has not happened yet."""
        recipe = self._recipe(name)
        image = recipe.load(self._images_dir / name)
        if image is not None:
            return image
        return await self._build(recipe, None)

    async def build(self, name: str, progress: Progress) -> Image:
        """Build the image again, or join the build that is under way."""
        recipe = self._recipe(name)
        await self._build(recipe, progress)
        return self._describe(recipe)

    def _recipe(self, name: str) -> Recipe:
        try:
            return self._recipes[name]
        except KeyError:
            known = ", ".join(sorted(self._recipes))
            raise NotFound(
                f"there is no image {name!r} on this node", hint=f"it has: {known}"
            ) from None

    async def _build(self, recipe: Recipe, progress: Progress | None) -> ImageFiles:
        """The outcome of the one build of *recipe*; it goes on when a caller goes away."""
        build = self._builds.get(recipe.name)
        if build is None:
            build = self._builds[recipe.name] = _Build([], [])
            self._errors.pop(recipe.name, None)
            Deferred.fromCoroutine(self._carry_out(recipe, build))
            if recipe.name not in self._builds:
                return self._finished(recipe)
        if progress is not None:
            build.progress.append(progress)
            progress(*build.last)
        outcome: Deferred[ImageFiles] = Deferred()
        build.waiting.append(outcome)
        try:
            return await outcome
        finally:
            if outcome in build.waiting:
                build.waiting.remove(outcome)
            if progress is not None and progress in build.progress:
                build.progress.remove(progress)

    async def _carry_out(self, recipe: Recipe, build: _Build) -> None:
        """Build, and tell everybody who waits. Raises nothing."""
        image: ImageFiles | None = None
        error: HeroError = ImageUnavailable(f"image {recipe.name} could not be built")
        try:
            image = await recipe.build(self._reactor, self._images_dir / recipe.name, build.report)
        except HeroError as expected:
            error = expected
        except Exception as unexpected:
            _log.failure("image build failed: {image}", image=recipe.name)
            error = ImageUnavailable(
                f"image {recipe.name} could not be built: {unexpected}",
                hint="the log of the compute service has more",
            )
        del self._builds[recipe.name]
        if image is None:
            self._errors[recipe.name] = error.detail
        waiting, build.waiting = build.waiting, []
        for outcome in waiting:
            if outcome.called:
                continue
            if image is None:
                outcome.errback(error)
            else:
                outcome.callback(image)

    def _finished(self, recipe: Recipe) -> ImageFiles:
        """The outcome of a build that ended at once."""
        image = recipe.load(self._images_dir / recipe.name)
        if image is None:
            raise ImageUnavailable(
                self._errors.get(recipe.name, f"image {recipe.name} could not be built")
            )
        return image

    def _describe(self, recipe: Recipe) -> Image:
        directory = self._images_dir / recipe.name
        image = recipe.load(directory)
        if recipe.name in self._builds:
            return Image(name=recipe.name, state="building", description=recipe.description)
        if image is None:
            error = self._errors.get(recipe.name)
            return Image(
                name=recipe.name,
                state="absent" if error is None else "failed",
                description=recipe.description,
                error=error,
            )
        parts = [path for path in (image.kernel, image.initrd, image.disk) if path is not None]
        return Image(
            name=recipe.name,
            state="ready",
            description=recipe.description,
            size=sum(path.stat().st_size for path in parts),
            digest=image.digest,
            created_at=datetime.fromtimestamp(directory.stat().st_mtime, tz=UTC),
        )
