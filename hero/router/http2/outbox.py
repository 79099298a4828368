"""The bodies of answers, which wait for the client's windows and take turns (RFC 9113 section 5.2).

No I/O: frames go into the buffer of `h2`.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from h2.connection import H2Connection

#: The longest frame sent, whatever a client takes, so that no stream makes others wait for long.
_FRAME = 65536
#: Sent in one go, before looking whether the client still reads.
_BATCH = 131_072


class Outgoing:
    """What one stream has still to send.

    ``ended``: nothing more will be put. ``done``: that was sent, too.
    """

    __slots__ = ("_at", "_pieces", "done", "ended", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._at = 0
        self.size = 0
        self.ended = self.done = False

    def put(self, data: bytes) -> None:
        """Add *data*, which is not empty."""
        self._pieces.append(data)
        self.size += len(data)

    def take(self, most: int) -> bytes:
        """The next *most* bytes, or somewhat less."""
        pieces, at = self._pieces, self._at
        first = pieces[0]
        if len(first) - at > most:
            self._at = at + most
            self.size -= most
            return first[at : at + most]
        part = first[at:] if at else first
        pieces.popleft()
        self._at = 0
        if pieces and len(part) + len(pieces[0]) <= most:
            parts, room = [part], most - len(part)
            while pieces and len(pieces[0]) <= room:
                room -= len(pieces[0])
                parts.append(pieces.popleft())
            part = b"".join(parts)
        self.size -= len(part)
        return part

    def drop(self) -> None:
        """Forget what was not sent."""
        self._pieces.clear()
        self.size = self._at = 0


class Sender(Protocol):
    """A stream, as far as the outbox knows it."""

    number: int
    outgoing: Outgoing
    in_turn: bool

    def sent(self, count: int, *, last: bool) -> None: ...


class Outbox:
    """The streams of one connection that have something to send and may send it."""

    def __init__(self, library: H2Connection) -> None:
        self._library = library
        self._turn: deque[Sender] = deque()

    def add(self, sender: Sender) -> None:
        """*sender* has something to send, or its window was opened."""
        outgoing = sender.outgoing
        if not sender.in_turn and not outgoing.done and (outgoing.size or outgoing.ended):
            sender.in_turn = True
            self._turn.append(sender)

    def remove(self, sender: Sender) -> None:
        """*sender* is gone."""
        if sender.in_turn:
            sender.in_turn = False
            self._turn.remove(sender)

    def pump(self) -> bool:
        """Send a frame of each stream in its turn; whether there may be more to send."""
        library, turn = self._library, self._turn
        longest = min(_FRAME, library.max_outbound_frame_size)
        sent = 0
        while turn and sent < _BATCH:
            sender = turn[0]
            outgoing = sender.outgoing
            if outgoing.size:
                room = library.local_flow_control_window(sender.number)
                if room <= 0 and library.outbound_flow_control_window <= 0:
                    return False
                turn.popleft()
                if room <= 0:
                    sender.in_turn = False
                    continue
                data = outgoing.take(min(room, longest))
            else:
                turn.popleft()
                data = b""
            last = outgoing.done = outgoing.ended and not outgoing.size
            library.send_data(sender.number, data, end_stream=last)
            sent += len(data) + 9
            if outgoing.size:
                turn.append(sender)
            else:
                sender.in_turn = False
            sender.sent(len(data), last=last)
        return bool(turn)
