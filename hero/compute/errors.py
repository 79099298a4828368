"""What can go wrong with VMs, as a caller sees it."""

from __future__ import annotations

from hero.errors import HeroError


class SliceUnavailable(HeroError):
    """The node has too few free slices, or the one asked for is in use."""

    kind = "slice_unavailable"
    code = -32030


class ImageUnavailable(HeroError):
    """The image is known and could not be made ready on the node."""

    kind = "image_unavailable"
    code = -32031
