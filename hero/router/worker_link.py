"""What the main process and its workers say to each other: JSON, a message a line, over pipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

#: The descriptors of a worker: from the main process, to it, and the first listening socket.
FROM_MAIN, TO_MAIN, FIRST_SOCKET = 3, 4, 5

#: Bytes of one message. A list of 20,000 connections has about 6 MB.
LONGEST = 64 * 1024 * 1024

Command = Literal["accept", "drain", "reload", "reopen"]
Question = Literal["routes", "connections", "snapshot"]


class Given(msgspec.Struct):
    """A listener of a worker's, and the descriptors of its sockets."""

    spec: str
    secure: bool
    descriptors: list[int]


class Start(msgspec.Struct):
    """The first message to a worker, one of *share*; *arguments* are the main process's.

    *reactor* is the module whose ``install`` makes the reactor that the main process has.
    """

    number: int
    share: int
    arguments: list[str]
    listeners: list[Given]
    reactor: str


class Ask(msgspec.Struct, omit_defaults=True):
    """The others. What has an ``id`` is answered."""

    what: Command | Question
    id: int = 0


class Answer(msgspec.Struct):
    """From a worker. With id 0 it says that it is ready."""

    id: int
    value: msgspec.Raw = msgspec.Raw(b"null")


class Lines:
    """Calls *received* with each line of what it is fed; *overrun* when one is too long."""

    def __init__(
        self, received: Callable[[bytes], None], overrun: Callable[[], None], limit: int = LONGEST
    ) -> None:
        self._received = received
        self._overrun = overrun
        self._limit = limit
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> None:
        """Some more of it."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._parts.append(line)
            complete, self._parts, self._held = b"".join(self._parts), [], 0
            self._received(complete)
        if rest:
            self._parts.append(rest)
            self._held += len(rest)
        if self._held > self._limit:
            self._parts, self._held = [], 0
            self._overrun()
