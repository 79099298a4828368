"""Slices: how a node's memory and disk are cut up, and who gets which piece.

Plain functions; the store keeps what they decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import attrs

from hero.compute.errors import SliceUnavailable
from hero.compute.model import Slice
from hero.errors import InvalidConfiguration, NotFound

KIB, MIB, GIB = 2**10, 2**20, 2**30

#: Memory that is left to the node itself.
RESERVED_MEMORY = GIB
DEFAULT_SLICE_MEMORY = 4 * GIB
#: A micro guest with 64 MiB runs out of memory before it prints anything, with 80 MiB it boots.
LEAST_SLICE_MEMORY = 96 * MIB

_SIZE = re.compile(r"(\d+)\s*(|[KMGT])(?:i?B)?", re.IGNORECASE)
_FACTORS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 2**40}


def parse_size(text: str) -> int:
    """Bytes, from ``268435456``, ``256M`` or ``4GiB``. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 4G or 512M")
    return int(match[1]) * _FACTORS[match[2].upper()]


@attrs.frozen(kw_only=True)
class Division:
    """How a node is divided: so many slices of so much memory and disk each."""

    count: int
    memory: int
    disk: int


def divide(*, total_memory: int, usable_disk: int, slice_memory: int) -> Division:
    """Cut a node up: ``floor((total_memory - 1 GiB) / slice_memory)`` slices, equal disk for each.

    Sizes are bytes; the disk of a slice is rounded down to a whole MiB. A node too small for one
    slice has none.
    """
    if slice_memory < LEAST_SLICE_MEMORY:
        raise InvalidConfiguration(
            f"a slice of {slice_memory} bytes is too small for a VM",
            hint=f"set --slice-memory to {LEAST_SLICE_MEMORY // MIB}M or more",
        )
    count = max(0, (total_memory - RESERVED_MEMORY) // slice_memory)
    disk = usable_disk // count // MIB * MIB if count else 0
    return Division(count=count, memory=slice_memory, disk=disk)


@attrs.frozen(kw_only=True)
class Resizing:
    """What to change so that the slices kept fit a division."""

    add: tuple[int, ...] = ()
    """Indexes of new slices."""
    update: tuple[str, ...] = ()
    """Sids of free slices that get the division's memory and disk."""
    remove: tuple[str, ...] = ()
    """Sids of free slices that are not there any more."""
    excess: int = 0
    """Slices in use beyond what the node has now."""


def resize(existing: Sequence[Slice], division: Division) -> Resizing:
    """Fit *existing* slices to *division*. A slice in use stays as it is."""
    in_use = [s for s in existing if s.state == "in_use"]
    free = sorted((s for s in existing if s.state == "free"), key=lambda s: s.index)
    room = max(0, division.count - len(in_use))
    kept, removed = free[:room], free[room:]
    taken = {s.index for s in in_use} | {s.index for s in kept}
    missing = max(0, division.count - len(in_use) - len(kept))
    unused = (i for i in range(len(existing) + division.count) if i not in taken)
    return Resizing(
        add=tuple(next(unused) for _ in range(missing)),
        update=tuple(s.sid for s in kept if (s.memory, s.disk) != (division.memory, division.disk)),
        remove=tuple(s.sid for s in removed),
        excess=max(0, len(in_use) - division.count),
    )


def allocate(slices: Iterable[Slice], count: int, named: str | None = None) -> list[Slice]:
    """Choose *count* free slices, lowest index first, the one *named* among them.

    Raises `NotFound` where no slice is *named* so, `SliceUnavailable` where they are not free.
    """
    ordered = sorted(slices, key=lambda s: s.index)
    free = [s for s in ordered if s.state == "free"]
    chosen: list[Slice] = []
    if named is not None:
        wanted = next((s for s in ordered if s.sid == named), None)
        if wanted is None:
            raise NotFound(f"no slice {named} on this node", hint="hero slice list shows them")
        if wanted.state != "free":
            raise SliceUnavailable(
                f"slice {named} is in use by {wanted.vm_sid}",
                hint="leave slice_sid out to take any free slice",
            )
        chosen.append(wanted)
        free.remove(wanted)
    missing = count - len(chosen)
    if not ordered:
        raise SliceUnavailable(
            "this node has too little memory for one slice",
            hint="make its slices smaller (HERO_SLICE_MEMORY), or deploy on another node",
            data={"slices_free": 0, "slices": 0},
        )
    if missing > len(free):
        raise SliceUnavailable(
            f"{count} slices are wanted and {len(free) + len(chosen)} of {len(ordered)} are free",
            hint="delete a VM, ask for fewer slices, or deploy on another node",
            data={"slices_free": len(free) + len(chosen), "slices": len(ordered)},
        )
    return chosen + free[:missing]
