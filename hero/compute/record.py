"""What a node has written down about one VM: where it is wanted, and where it was last seen."""

from __future__ import annotations

from datetime import datetime

import attrs

from hero.compute.model import VmState, WantedState


@attrs.frozen(kw_only=True)
class VmRecord:
    """One VM of this node.

    ``reason`` is set where the VM came to ``state`` on its own, and is what keeps the reconciler
    from moving it back. ``revision`` counts the writes. A record with ``deleted_at`` is a memory
    of a VM: it holds no slices, files or name.
    """

    sid: str
    name: str
    context: str
    image: str
    vcpus: int
    memory: int
    disk: int
    state: VmState
    wanted: WantedState
    created_at: datetime
    slices: tuple[str, ...] = ()
    labels: dict[str, str] = attrs.field(factory=dict)
    reason: str | None = None
    started_at: datetime | None = None
    deleted_at: datetime | None = None
    revision: int = 1

    @property
    def undone(self) -> bool:
        """Whether this is what is left of a deploy that came to nothing, for ``reason``."""
        return self.deleted_at is not None and self.reason is not None
