"""What runs the guests and what they start from, by the word that ``--hypervisor`` gives."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from hero.compute.guest import ImageFiles
from hero.compute.hypervisor.accelerator import (
    UNPROVED,
    prove_accelerator,
    remembered_accelerator,
)
from hero.compute.hypervisor.memory import MemoryHypervisor
from hero.compute.hypervisor.qemu import QemuHypervisor
from hero.compute.images.store import ImageStore, Recipe
from hero.compute.interfaces import IHypervisor, IImageStore, Progress
from hero.compute.model import Accelerator, Image
from hero.errors import HeroError
from hero.paths import HeroPaths

NAMES = ("qemu", "memory")

_log = Logger()


@attrs.frozen(kw_only=True)
class Backend:
    """A hypervisor with the images for it.

    ``accelerator`` tells what executes the guests' instructions, None where nothing does;
    ``problem`` what keeps guests from running, None where nothing is known to.
    """

    hypervisor: IHypervisor
    images: IImageStore
    accelerator: Callable[[], Accelerator | None]
    problem: Callable[[], str | None] = lambda: None


def make(name: str, reactor: Any, paths: HeroPaths) -> Backend:
    """The backend that *name*, one of `NAMES`, stands for."""
    return {"qemu": qemu_backend, "memory": memory_backend}[name](reactor, paths)


def qemu_backend(reactor: Any, paths: HeroPaths) -> Backend:
    """Real guests. What accelerates them is found out before the first one starts."""
    known = remembered_accelerator(paths.state)
    hypervisor = QemuHypervisor(reactor, paths.vms, known or UNPROVED)
    images = ImageStore(reactor, paths.images)

    async def prove() -> None:
        probe = await images.get("micro")
        hypervisor.accelerator = await prove_accelerator(reactor, paths.state, probe)

    proved_images = ImagesAfter(images, prove)
    return Backend(
        hypervisor=hypervisor,
        images=proved_images if known is None else images,
        accelerator=lambda: hypervisor.accelerator,
        problem=lambda: proved_images.problem,
    )


def memory_backend(reactor: Any, paths: HeroPaths) -> Backend:
    """Guests that exist on paper only, started from an image that is empty."""
    return Backend(
        hypervisor=MemoryHypervisor(reactor, paths.vms),
        images=ImageStore(reactor, paths.images, recipes=(_EMPTY,)),
        accelerator=lambda: None,
    )


@implementer(IImageStore)
class ImagesAfter:
    """The images of *images*, handed out once *preparation* has been made, one time.

    A preparation that fails is logged and tried again with the next image; it keeps no image
    back.
    """

    def __init__(self, images: IImageStore, preparation: Callable[[], Awaitable[None]]) -> None:
        self._images = images
        self._preparation = preparation
        self._lock = DeferredLock()
        self._prepared = False
        self.problem: str | None = None

    async def list(self) -> list[Image]:
        """See `IImageStore.list`."""
        return await self._images.list()

    async def get(self, name: str) -> ImageFiles:
        """See `IImageStore.get`."""
        files = await self._images.get(name)
        await self._lock.acquire()
        try:
            if not self._prepared:
                await self._preparation()
                self._prepared = True
                self.problem = None
        except (HeroError, OSError) as error:
            self.problem = error.detail if isinstance(error, HeroError) else str(error)
            _log.warn("not prepared for image {image}: {error}", image=name, error=self.problem)
        finally:
            self._lock.release()
        return files

    async def build(self, name: str, progress: Progress) -> Image:
        """See `IImageStore.build`."""
        return await self._images.build(name, progress)


def _load_empty(directory: Path) -> ImageFiles | None:
    return ImageFiles(name="micro") if directory.is_dir() else None


async def _build_empty(reactor: Any, directory: Path, progress: Progress) -> ImageFiles:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    progress(1.0, "ready")
    return ImageFiles(name="micro")


_EMPTY = Recipe("micro", "Nothing at all, for guests in memory", _load_empty, _build_empty)
