"""What a service, or a file beside its socket, says of it."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
import msgspec
from msgspec import Meta

from hero.router.entries import Identity
from hero.router.errors import BadAnswer
from hero.router.limits import Limits

_Line = Annotated[str, Meta(max_length=512)]
_Bytes = Annotated[int, Meta(ge=0, le=2**53)]
_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_CountOrNone = Annotated[int, Meta(ge=0, le=1_000_000)]
#: Up to 30 days.
_Seconds = Annotated[float, Meta(gt=0, le=2_592_000)]


@attrs.frozen(kw_only=True)
class WantedLimits:
    """Bounds on what the router sends to a service; None leaves one to the router.

    ``body`` is the bytes of a request's body, ``connections`` the requests at one time, and
    ``waiting`` those beyond that wait for their turn.
    """

    body: _Bytes | None = None
    connections: _Count | None = None
    waiting: _CountOrNone | None = None


@attrs.frozen(kw_only=True)
class WantedTimeouts:
    """For how long the router has patience with a service; None leaves that to the router.

    ``connect``: to connect; ``wait``: for a connection to come free; ``first_byte``: for the
    answer to begin; ``idle``: without progress of a body; ``whole``: for a request and its answer;
    ``tunnel``: without a byte once the protocol was switched.
    """

    connect: _Seconds | None = None
    wait: _Seconds | None = None
    first_byte: _Seconds | None = None
    idle: _Seconds | None = None
    whole: _Seconds | None = None
    tunnel: _Seconds | None = None


@attrs.frozen(kw_only=True)
class Manifest:
    """``access``: who may call; None leaves it to the router.

    ``prefix``: whether paths reach the service without ``/{service}/{socket}``, or with it.
    """

    name: _Line | None = None
    version: _Line | None = None
    protocol: _Line | None = None
    description: _Line | None = None
    access: Literal["cluster", "public"] | None = None
    prefix: Literal["strip", "keep"] = "strip"
    limits: WantedLimits = WantedLimits()
    timeouts: WantedTimeouts = WantedTimeouts()

    def applied_to(self, limits: Limits) -> Limits:
        """The router's *limits* with what this service wants otherwise."""
        wanted: dict[str, Any] = {
            "body": self.limits.body,
            "upstreams": self.limits.connections,
            "waiting": self.limits.waiting,
            "connect_time": self.timeouts.connect,
            "wait_time": self.timeouts.wait,
            "answer_time": self.timeouts.first_byte,
            "stall_time": self.timeouts.idle,
            "whole_time": self.timeouts.whole,
            "tunnel_time": self.timeouts.tunnel,
        }
        changes = {name: value for name, value in wanted.items() if value is not None}
        return attrs.evolve(limits, **changes) if changes else limits


def starts_like_one(data: bytes) -> bool:
    """Whether *data* may be meant as a manifest."""
    return _text(data).startswith(b"{")


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in *data*, JSON; members that are not known are left out. Raises `BadAnswer`."""
    try:
        return msgspec.json.decode(_text(data), type=Manifest)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"its manifest: {error}") from None


def read_manifest_file(path: Path, identity: Identity, limits: Limits) -> Manifest:
    """The manifest in the file *path*, if that is the one of *identity* still.

    Raises `BadAnswer`. It takes no longer than a look at the directory: the file is small, and on
    the disk where the sockets are.
    """
    try:
        # A name can be given to another kind of file at any time; a FIFO would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino, status.st_ctime_ns) != identity:
                raise BadAnswer(f"its manifest {path.name} has just changed")
            if not stat.S_ISREG(status.st_mode):
                raise BadAnswer(f"its manifest {path.name} is not a file")
            data = os.read(descriptor, limits.manifest + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadAnswer(f"its manifest {path.name}: {error.strerror}") from None
    if len(data) > limits.manifest:
        raise BadAnswer(f"its manifest is longer than {limits.manifest} bytes")
    return parse_manifest(data)


def _text(data: bytes) -> bytes:
    return data.removeprefix(codecs.BOM_UTF8).lstrip()
