"""What the compute service needs of a hypervisor and of a store of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from zope.interface import Interface

from hero.compute.guest import (
    GuestObservation,
    GuestSpec,
    GuestStats,
    ImageFiles,
    StopReason,
)
from hero.compute.model import Image

#: Called with a guest's sid and what it turned into.
GuestObserver = Callable[[str, GuestObservation], None]

#: Called with how far something got, from 0 to 1, and what it is doing.
Progress = Callable[[float, str], None]


class IHypervisor(Interface):
    """Runs the guests of one node.

    A guest is known from its first `create_disk` or `start` until `remove`, across restarts of
    ours: guests go on while nobody watches. Commands for one guest are carried out one at a time.
    A guest that is not known is `hero.errors.NotFound`; one in the wrong state for a command is
    `hero.errors.Conflict`; a hypervisor that fails is a `hero.compute.hypervisor.errors` error.
    """

    async def create_disk(spec: GuestSpec) -> None:
        """Make the guest's own disk over its image's; an existing one is left as it is."""

    async def start(spec: GuestSpec) -> GuestObservation:
        """Boot the guest, making its disk if need be; one that runs or is paused is left alone."""

    async def stop(sid: str, grace: float) -> StopReason:
        """Ask the guest to power off, and after *grace* seconds pull the plug.

        A paused guest, which cannot power off, loses its power at once. The answer is why it is
        stopped: `StopReason.STOPPED` or `StopReason.KILLED`, or the older reason where it already
        was.
        """

    async def kill(sid: str) -> None:
        """Pull the plug. A stopped guest is left as it is."""

    async def pause(sid: str) -> None:
        """Freeze the guest; a paused one is left as it is."""

    async def resume(sid: str) -> None:
        """Let a paused guest go on; a running one is left as it is."""

    async def observe() -> dict[str, GuestObservation]:
        """Every guest that is known, by sid, alive or not. Takes over those found running."""

    async def remove(sid: str) -> None:
        """Pull the plug, delete the guest's files and forget it; unknown guests are fine."""

    async def stats(sid: str) -> GuestStats:
        """What the guest uses right now."""

    def console_path(sid: str) -> Path:
        """The file with the guest's console output; read it with `hero.compute.console_log`."""

    def subscribe(observer: GuestObserver) -> Callable[[], None]:
        """Call *observer* when a guest changes on its own; the answer is called to stop that."""

    def close() -> None:
        """Let go of the guests, which run on."""


class IImageStore(Interface):
    """The images of one node."""

    async def list() -> list[Image]:
        """Every image that can be had, ready or not."""

    async def get(name: str) -> ImageFiles:
        """The image's files, built first where that has not happened yet.

        Raises `hero.errors.NotFound` or `hero.compute.errors.ImageUnavailable`.
        """

    async def build(name: str, progress: Progress) -> Image:
        """Build the image again. Callers that ask meanwhile share the one build."""
