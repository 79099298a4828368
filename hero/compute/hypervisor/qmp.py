"""QEMU's machine protocol: JSON objects, one a line, over a UNIX socket.

The server greets, the client negotiates capabilities, then commands carry an id that their reply
repeats, and events come in between (QEMU's ``docs/interop/qmp-spec``). QEMU serves one client at
a time; the next one waits unanswered, hence the time limits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from hero.paths import MAX_SOCKET_PATH

_log = Logger()

#: Called with an event's name and data.
EventHandler = Callable[[str, dict[str, Any]], None]


class QmpError(Exception):
    """A command was not carried out, as far as one can tell."""


class QmpRefused(QmpError):
    """QEMU answered the command with an error; the message has its words."""


class QmpLost(QmpError):
    """The connection is gone, or could not be made."""


class QmpTimeout(QmpError):
    """QEMU did not answer in time."""


class QmpClient(LineOnlyReceiver):
    """The client's side of one connection. *handle_event* must not raise.

    `ready` fires when commands can be given, `lost` when none can any more; `lost` never fails.
    """

    delimiter = b"\n"
    MAX_LENGTH = 1024 * 1024

    def __init__(self, clock: IReactorTime, handle_event: EventHandler) -> None:
        self.ready: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self._clock = clock
        self._handle_event = handle_event
        self._waiting: dict[int, Deferred[Any]] = {}
        self._next_id = 0
        self._open = True

    async def execute(
        self, command: str, arguments: dict[str, Any] | None = None, limit: float = 10.0
    ) -> Any:
        """Carry out *command* and return what QEMU returns, within *limit* seconds.

        Raises a `QmpError`.
        """
        if not self._open:
            raise QmpLost(f"{command}: the connection to QEMU is gone")
        self._next_id += 1
        number = self._next_id
        message: dict[str, Any] = {"execute": command, "id": number}
        if arguments:
            message["arguments"] = arguments
        reply: Deferred[Any] = Deferred()
        self._waiting[number] = reply
        self._write(json.dumps(message).encode() + b"\n")
        reply.addTimeout(limit, self._clock)
        try:
            answer = await reply
        except DeferredTimeout:
            raise QmpTimeout(f"{command}: QEMU did not answer within {limit:g} s") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            error = answer["error"]
            words = error.get("desc") if isinstance(error, dict) else error
            raise QmpRefused(f"{command}: {words or 'QEMU refused'}")
        return answer.get("return")

    def close(self) -> None:
        """Hang up."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def lineReceived(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            _log.error("QEMU sent something that is not QMP: {line!r}", line=line[:200])
            self.close()
        elif "event" in message:
            data = message.get("data")
            self._handle_event(message["event"], data if isinstance(data, dict) else {})
        elif "QMP" in message:
            Deferred.fromCoroutine(self._negotiate())
        else:
            reply = self._waiting.pop(message.get("id", 0), None)
            if reply is not None and not reply.called:
                reply.callback(message)

    def lineLengthExceeded(self, line: bytes) -> None:
        _log.error("QEMU sent a line of more than {limit} bytes", limit=self.MAX_LENGTH)
        self.close()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._open = False
        lost = QmpLost("the connection to QEMU is gone")
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            if not reply.called:
                reply.errback(lost)
        if not self.ready.called:
            self.ready.errback(lost)
        self.lost.callback(None)

    def _write(self, data: bytes) -> None:
        assert self.transport is not None, "commands are given once connected"
        self.transport.write(data)

    async def _negotiate(self) -> None:
        try:
            await self.execute("qmp_capabilities")
        except QmpError as error:
            if not self.ready.called:
                self.ready.errback(error)
        else:
            if not self.ready.called:
                self.ready.callback(None)


async def connect_qmp(
    reactor: Any, socket: Path, handle_event: EventHandler, limit: float
) -> QmpClient:
    """A client that is ready for commands, within *limit* seconds. Raises a `QmpError`."""
    client = QmpClient(reactor, handle_event)
    with socket_address(socket) as address:
        endpoint = UNIXClientEndpoint(reactor, address, timeout=limit)
        try:
            await endpoint.connect(Factory.forProtocol(lambda: client))
        except Exception as error:
            number = getattr(error, "osError", None)
            reason = os.strerror(number) if number else "nobody answers there"
            raise QmpLost(f"cannot connect to {socket}: {reason}") from error
    client.ready.addTimeout(limit, reactor)
    try:
        await client.ready
    except DeferredTimeout:
        client.close()
        raise QmpTimeout(f"QEMU did not greet at {socket} within {limit:g} s") from None
    except QmpError:
        client.close()
        raise
    return client


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A name for the socket *path* that fits a socket address, good until the block ends."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        yield str(path)
        return
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise QmpLost(f"cannot connect to {path}: {error.strerror}") from error
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
