"""Answers as h11 reads them: a client that shares no line with the router."""

from __future__ import annotations

import attrs
import h11


@attrs.define
class Answer:
    """One answer. ``interim`` are the statuses before it; ``whole``: its end was seen."""

    status: int = 0
    interim: list[int] = attrs.field(factory=list)
    headers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    whole: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


@attrs.define
class Reading:
    """The answers, what followed them or a change of protocol, and what h11 objected to."""

    answers: list[Answer]
    rest: bytes = b""
    error: str | None = None


def read_answers(received: bytes, requests: list[bytes], *, closed: bool) -> Reading:
    """What *received* answers to *requests*, the heads that were sent, in order.

    *closed*: the connection was closed properly after it.
    """
    connection = h11.Connection(h11.CLIENT)
    if received:  # nothing would be taken for the end
        connection.receive_data(received)
    if closed:
        connection.receive_data(b"")
    reading = Reading([])
    try:
        for request in requests:
            _ask(connection, request)
            if not _read(connection, reading):
                break
    except h11.RemoteProtocolError as error:
        reading.error = str(error)
    reading.rest = bytes(connection.trailing_data[0])
    return reading


def _ask(connection: h11.Connection, head: bytes) -> None:
    """Tell h11 of a request, so that it knows what it reads the answer to."""
    line, *fields = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
    kept = (b"connection", b"upgrade", b"host")
    headers = [
        (name, value.strip())
        for name, _, value in (field.partition(b":") for field in fields)
        if name.lower() in kept
    ]
    if not any(name.lower() == b"host" for name, _ in headers):
        headers.append((b"host", b"a"))
    method = line.partition(b" ")[0]
    connection.send(h11.Request(method=method, target=b"/", headers=headers))
    connection.send(h11.EndOfMessage())


def _read(connection: h11.Connection, reading: Reading) -> bool:
    """Read one answer; whether another one can follow it."""
    answer = Answer()
    while True:
        event = connection.next_event()
        if isinstance(event, h11.InformationalResponse):
            if event.status_code == 101:
                answer.status = 101
                answer.headers = list(event.headers)
                answer.whole = True
                reading.answers.append(answer)
                return False
            answer.interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            answer.status = event.status_code
            answer.headers = list(event.headers)
            reading.answers.append(answer)
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            answer.trailers = list(event.headers)
            answer.whole = True
            if connection.their_state is not h11.DONE or connection.our_state is not h11.DONE:
                return False
            connection.start_next_cycle()
            return True
        else:
            if answer.interim and not answer.status:
                reading.answers.append(answer)
            return False
