"""Connecting to the sockets of services that do, or do not, accept."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError, NoProtocol
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from hero.router.fast.connector import EagerUNIXClientEndpoint, is_busy
from tests.router.harness import Wire


class Refusals:
    """What both endpoints tell of a connection that was not made."""

    timeout = 10
    endpoint: Any

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-fast-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.path = self.directory / "sock"

    def bound(self, backlog: int | None) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.bind(str(self.path))
        if backlog is not None:
            sock.listen(backlog)
        return sock

    async def connect(self, factory: Factory | None = None) -> Any:
        factory = factory or Factory.forProtocol(Wire)
        factory.noisy = False
        return await self.endpoint(reactor, str(self.path), timeout=5).connect(factory)

    async def error(self) -> ConnectError:
        try:
            wire = await self.connect()
        except ConnectError as error:
            return error
        wire.transport.abortConnection()
        raise AssertionError("it was connected")

    async def test_no_such_socket(self) -> None:
        error = await self.error()
        self.assertIs(type(error), ConnectError)
        self.assertEqual(error.osError, 2)
        self.assertFalse(is_busy(error))

    async def test_nobody_listens(self) -> None:
        self.bound(None)
        error = await self.error()
        self.assertIsInstance(error, ConnectionRefusedError)
        self.assertFalse(is_busy(error))

    async def test_full_backlog_is_busy(self) -> None:
        self.bound(0)
        waiting = []
        try:
            while True:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                waiting.append(sock)
                sock.connect(str(self.path))
        except BlockingIOError:
            self.assertTrue(is_busy(await self.error()))
        finally:
            for sock in waiting:
                sock.close()

    async def test_factory_that_builds_nothing(self) -> None:
        self.bound(5)

        class Nothing(Factory):
            def buildProtocol(self, addr: Any) -> None:
                return None

        with self.assertRaises(NoProtocol):
            await self.connect(Nothing())

    async def test_factory_learns_of_the_connection_and_its_end(self) -> None:
        server = self.bound(5)
        said: list[str] = []
        stopped: Deferred[None] = Deferred()

        class Telling(Factory):
            protocol = Wire

            def startFactory(self) -> None:
                said.append("start")

            def stopFactory(self) -> None:
                said.append("stop")
                stopped.callback(None)

        wire = await self.connect(Telling())
        self.assertEqual(said, ["start"])
        self.assertEqual(wire.transport.getPeer().name, str(self.path).encode())
        server.accept()[0].close()
        await stopped
        self.assertTrue(wire.closed)
        self.assertEqual(said, ["start", "stop"])


class PlainTests(Refusals, TestCase):
    endpoint = UNIXClientEndpoint


class EagerTests(Refusals, TestCase):
    endpoint = EagerUNIXClientEndpoint

    def test_it_is_connected_at_once(self) -> None:
        self.bound(5)
        wire = self.successResultOf(
            EagerUNIXClientEndpoint(reactor, self.path).connect(Factory.forProtocol(Wire))
        )
        wire.transport.abortConnection()
        return wire.until(lambda wire: wire.closed)
