"""The conversation with QEMU."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from hero.compute.hypervisor.qmp import (
    QmpClient,
    QmpLost,
    QmpRefused,
    QmpTimeout,
    connect_qmp,
    socket_address,
)

GREETING = {"QMP": {"version": {}, "capabilities": []}}


class Conversation:
    """A client, and QEMU's side played by the test."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.client = QmpClient(self.clock, lambda name, data: self.events.append((name, data)))
        self.transport = StringTransport()
        self.client.makeConnection(self.transport)

    def qemu_says(self, *messages: Any) -> None:
        for message in messages:
            self.client.dataReceived(json.dumps(message).encode() + b"\r\n")

    def client_said(self) -> list[Any]:
        lines = self.transport.value().splitlines()
        self.transport.clear()
        return [json.loads(line) for line in lines]

    def begin(self) -> None:
        self.qemu_says(GREETING)
        [negotiation] = self.client_said()
        self.qemu_says({"return": {}, "id": negotiation["id"]})

    def execute(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.client.execute(*args, **kwargs))


class QmpClientTests(TestCase):
    """`QmpClient`."""

    def setUp(self) -> None:
        self.conversation = Conversation()

    def test_negotiates(self) -> None:
        """Nothing is said before the greeting; capabilities come first."""
        self.assertEqual(self.conversation.client_said(), [])
        self.conversation.qemu_says(GREETING)
        self.assertEqual(
            self.conversation.client_said(), [{"execute": "qmp_capabilities", "id": 1}]
        )
        self.assertNoResult(self.conversation.client.ready)
        self.conversation.qemu_says({"return": {}, "id": 1})
        self.successResultOf(self.conversation.client.ready)

    def test_replies_find_their_command(self) -> None:
        """Replies are matched by id, whatever their order, with events in between."""
        self.conversation.begin()
        first = self.conversation.execute("query-status")
        second = self.conversation.execute("device_add", {"driver": "x"})
        a, b = self.conversation.client_said()
        self.assertEqual(b["arguments"], {"driver": "x"})
        self.conversation.qemu_says(
            {"return": 2, "id": b["id"]},
            {"event": "SHUTDOWN", "data": {"guest": True}, "timestamp": {}},
            {"return": 1, "id": a["id"]},
        )
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(self.successResultOf(second), 2)
        self.assertEqual(self.conversation.events, [("SHUTDOWN", {"guest": True})])

    def test_error(self) -> None:
        """An error has QEMU's words."""
        self.conversation.begin()
        outcome = self.conversation.execute("nonsense")
        [said] = self.conversation.client_said()
        self.conversation.qemu_says(
            {"error": {"class": "CommandNotFound", "desc": "never heard of"}, "id": said["id"]}
        )
        self.assertIn("never heard of", str(self.failureResultOf(outcome, QmpRefused).value))

    def test_no_answer(self) -> None:
        """A command that is not answered in time fails, and a late answer is ignored."""
        self.conversation.begin()
        outcome = self.conversation.execute("query-status", limit=3.0)
        [said] = self.conversation.client_said()
        self.conversation.clock.advance(2.9)
        self.assertNoResult(outcome)
        self.conversation.clock.advance(0.2)
        self.failureResultOf(outcome, QmpTimeout)
        self.conversation.qemu_says({"return": {}, "id": said["id"]})

    def test_connection_lost(self) -> None:
        """What waits fails when the connection goes, and so does what comes later."""
        self.conversation.begin()
        outcome = self.conversation.execute("query-status")
        self.conversation.client.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(outcome, QmpLost)
        self.failureResultOf(self.conversation.execute("query-status"), QmpLost)
        self.successResultOf(self.conversation.client.lost)

    def test_lost_before_ready(self) -> None:
        """A connection that goes before the negotiation is over is never ready."""
        self.conversation.qemu_says(GREETING)
        self.conversation.client.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(self.conversation.client.ready, QmpLost)

    def test_not_qmp(self) -> None:
        """A peer that speaks something else is hung up on."""
        self.conversation.client.dataReceived(b"SSH-2.0-OpenSSH\r\n")
        self.assertTrue(self.conversation.transport.disconnecting)

    def test_endless_line(self) -> None:
        """A line that does not end is hung up on rather than kept."""
        self.conversation.client.dataReceived(b"{" * (QmpClient.MAX_LENGTH + 2))
        self.assertTrue(self.conversation.transport.disconnecting)


class ConnectTests(TestCase):
    """`connect_qmp` where there is no QEMU."""

    async def test_reason(self) -> None:
        """It is told in words; what Twisted says where it knows none is not for people."""
        for error, words in (
            (ConnectError(errno.ENOENT, "lost"), "No such file"),
            (ConnectError(string="[Failure instance: Traceback"), "nobody answers"),
        ):
            self.patch(UNIXClientEndpoint, "connect", lambda *_, error=error: fail(error))
            with self.assertRaises(QmpLost) as caught:
                await connect_qmp(reactor, Path("/nowhere/s"), lambda *_: None, 1.0)
            self.assertIn(words, str(caught.exception))
            self.assertNotIn("Traceback", str(caught.exception))


class SocketAddressTests(TestCase):
    """`socket_address`."""

    def test_short(self) -> None:
        """A path that fits is used as it is."""
        with socket_address(Path("/tmp/x/qmp.sock")) as address:  # noqa: S108
            self.assertEqual(address, "/tmp/x/qmp.sock")  # noqa: S108

    def test_long(self) -> None:
        """A path that does not fit is reached through a descriptor of its directory."""
        top = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, top)
        directory = top / ("d" * 120)
        directory.mkdir()
        (directory / "qmp.sock").write_bytes(b"here")
        with socket_address(directory / "qmp.sock") as address:
            self.assertLess(len(address), 108)
            self.assertEqual(Path(address).read_bytes(), b"here")

    def test_long_and_absent(self) -> None:
        """A long path to nowhere is an error like any other connection failure."""
        with self.assertRaises(QmpLost), socket_address(Path("/nowhere") / ("d" * 120) / "s"):
            pass
