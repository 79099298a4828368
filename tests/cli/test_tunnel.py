"""``hero tunnel``, as a process, through a router that runs here."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import ProcessProtocol

from hero.identity.node import ensure_master_identity
from hero.identity.tls import ServerTls
from hero.paths import HeroPaths
from hero.router.fast.port import listen_on
from hero.router.gateway import GatewayFactory
from tests.router.backend import H11Service
from tests.router.harness import Wire
from tests.router.test_tunnel import PIECE, TunnelCase

ROOT = Path(__file__).parents[2]
HERO = [sys.executable, "-c", "from hero.cli.main import main; main()"]


class Run(ProcessProtocol):
    """A command: what it wrote, and how it ended."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.code: int | None = None
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def processEnded(self, reason: Any) -> None:
        self.code = reason.value.exitCode
        self.ended.callback(None)


class CommandCase(TunnelCase):
    """Runs the command against a router without TLS."""

    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        self.home = self.directory / "client"
        self.home.mkdir()

    async def url(self) -> str:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(GatewayFactory(self.gateway, secure=False))
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}"

    def hero(self, *arguments: str, **environ: str) -> Run:
        """Start the command."""
        run = Run()
        process = reactor.spawnProcess(
            run,
            HERO[0],
            [*HERO, *arguments],
            env={
                "HERO_HOME": str(self.home),
                "PYTHONPATH": str(ROOT),
                "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                **environ,
            },
        )

        def end() -> Deferred[None]:
            if run.code is None and not run.ended.called:
                process.signalProcess("KILL")
            return run.ended

        self.addCleanup(end)
        return run

    async def through_router(self, *arguments: str, token: str = "hero_operator") -> Run:
        return self.hero(
            "tunnel", *(arguments or ("demo/ssh",)), HERO_URL=await self.url(), HERO_TOKEN=token
        )

    async def assertFails(self, run: Run, code: int, *words: str) -> None:
        run.transport.closeStdin()
        await run.ended
        said = run.err.decode()
        self.assertEqual((run.code, bytes(run.out)), (code, b""), said)
        self.assertNotIn("Traceback", said)
        for word in words:
            self.assertIn(word, said)


class StandardStreamsTests(CommandCase):
    async def test_bytes_pass_both_ways(self) -> None:
        service = self.serve_tunnel()
        run = await self.through_router()
        run.transport.write(b"\x00\xff hello")
        await self.happens(lambda: run.out == b"\x00\xff hello")
        service.connections[0].transport.loseConnection()
        await self.happens(lambda: service.connections[0].connected_ is False)
        run.transport.closeStdin()
        await run.ended
        self.assertEqual((run.code, bytes(run.err)), (0, b""))

    async def test_end_of_input_leaves_the_answer_to_come(self) -> None:
        service = self.serve_tunnel()
        run = await self.through_router()
        run.transport.write(b"question")
        run.transport.closeStdin()
        await self.happens(lambda: service.connections and service.connections[0].ended)
        connection = service.connections[0]
        connection.transport.write(PIECE * 32 + b"the last")
        connection.transport.loseConnection()
        await run.ended
        self.assertEqual((run.code, bytes(run.err)), (0, b""))
        self.assertEqual(bytes(run.out), b"question" + PIECE * 32 + b"the last")

    async def test_service_that_has_ended_is_still_written_to(self) -> None:
        service = self.serve_tunnel()
        run = await self.through_router()
        run.transport.write(b"a")
        await self.happens(lambda: run.out == b"a")
        (connection,) = service.connections
        connection.transport.loseWriteConnection()
        await self.pause(0.1)
        run.transport.write(PIECE * 32 + b"the last")
        run.transport.closeStdin()
        await self.happens(lambda: connection.ended)
        self.assertEqual(connection.received, b"a" + PIECE * 32 + b"the last")
        connection.transport.loseConnection()
        await run.ended
        self.assertEqual(run.code, 0, run.err)

    async def test_tunnel_that_breaks_is_an_error(self) -> None:
        service = self.serve_tunnel()
        run = await self.through_router()
        run.transport.write(b"a")
        await self.happens(lambda: run.out == b"a")
        run.out.clear()
        for front in self.gateway.connections:
            front.abort()
        await self.assertFails(run, 5, "Error: http://127.0.0.1", "the tunnel was cut off")
        self.assertEqual(len(service.connections), 1)

    async def test_socket_of_this_machine_needs_no_router(self) -> None:
        self.serve_tunnel()
        run = self.hero("tunnel", "demo/ssh", HERO_SOCKET_DIR=str(self.directory))
        run.transport.write(b"hello")
        await self.happens(lambda: run.out == b"hello")
        self.assertEqual(self.gateway.connections, [])


class ErrorTests(CommandCase):
    async def test_callers_that_are_refused(self) -> None:
        service = self.serve_tunnel()
        for token, word in (
            ("hero_viewer", "which needs the role operator"),
            ("hero_unknown", "unknown, revoked or expired"),
        ):
            await self.assertFails(await self.through_router(token=token), 4, "Error: ", word)
        self.assertEqual(service.connections, [])

    async def test_socket_that_is_not_there(self) -> None:
        self.serve_tunnel()
        run = await self.through_router("demo/none")
        await self.assertFails(run, 3, "there is no service at /demo/none", "Hint: ")
        run = self.hero("tunnel", "demo/none", HERO_SOCKET_DIR=str(self.directory))
        await self.assertFails(run, 3, "there is no socket", "Hint: ")

    async def test_service_that_speaks_http(self) -> None:
        self.serve(H11Service(), socket="ssh")
        await self.assertFails(
            await self.through_router(), 6, "is no tunnel (HTTP status 200)", "Hint: "
        )

    async def test_nobody_listens(self) -> None:
        self.serve_tunnel()
        await self.service_port.stopListening()
        run = self.hero(
            "tunnel", "demo/ssh", HERO_URL="http://127.0.0.1:1", HERO_TOKEN="hero_operator"
        )
        await self.assertFails(run, 5, "nobody listens there")

    async def test_names_that_are_none(self) -> None:
        for name in ("demo", "demo/../x", "a/b/c"):
            await self.assertFails(self.hero("tunnel", name), 1, "is no SERVICE/SOCKET")
        run = self.hero("tunnel", "demo/ssh", "--token-file", "-")
        await self.assertFails(run, 2, "standard input is the tunnel's")


class ListenTests(CommandCase):
    async def listening(self, run: Run) -> str:
        await self.happens(lambda: run.out.endswith(b"\n") or run.code is not None)
        self.assertTrue(run.out.startswith(b"listening on "), run.err)
        return run.out.decode().removeprefix("listening on ").strip()

    async def local(self, endpoint: Any) -> Wire:
        wire = Wire()
        wire.half_closes = True
        await connectProtocol(endpoint, wire)
        self.wires.append(wire)
        return wire

    async def test_each_connection_is_a_tunnel_of_its_own(self) -> None:
        service = self.serve_tunnel()
        run = await self.through_router("demo/ssh", "--listen", "127.0.0.1:0")
        host, _, port = (await self.listening(run)).rpartition(":")
        endpoint = TCP4ClientEndpoint(reactor, host, int(port))
        one, two = await self.local(endpoint), await self.local(endpoint)
        one.send(b"one")
        two.send(b"two" + PIECE * 32)
        await one.get(b"one")
        await self.happens(lambda: len(two.received) == 3 + len(PIECE) * 32)
        one.transport.loseWriteConnection()
        await self.happens(lambda: any(c.ended for c in service.connections))
        (ended,) = [c for c in service.connections if c.ended]
        ended.transport.write(b" and the last")
        ended.transport.loseConnection()
        await self.happens(lambda: one.ended)
        self.assertEqual(bytes(one.received), b"one and the last")
        run.transport.signalProcess("INT")
        await run.ended
        self.assertEqual((run.code, run.err.decode().strip()), (130, "stopped listening"))

    async def test_unix_socket_is_for_its_owner_alone(self) -> None:
        self.serve_tunnel()
        path = self.directory / "local"
        run = await self.through_router("demo/ssh", "--listen", f"unix:{path}")
        await self.listening(run)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        wire = await self.local(UNIXClientEndpoint(reactor, str(path)))
        wire.send(b"hello")
        await wire.get(b"hello")

    async def test_tunnel_that_is_refused_closes_the_connection_and_is_told(self) -> None:
        self.serve_tunnel()
        run = await self.through_router("demo/ssh", "--listen", "127.0.0.1:0", token="hero_viewer")
        host, _, port = (await self.listening(run)).rpartition(":")
        wire = await self.local(TCP4ClientEndpoint(reactor, host, int(port)))
        await wire.rest()
        await self.happens(lambda: b"needs the role operator" in run.err)

    async def test_addresses_that_are_none(self) -> None:
        self.serve_tunnel()
        for address in ("2222", "example.com:1", "127.0.0.1:x", "127.0.0.1:70000"):
            run = await self.through_router("demo/ssh", "--listen", address)
            await self.assertFails(run, 1, "is no address to listen at")


class TlsTests(CommandCase):
    """The same over TLS, as the router speaks it, with a token."""

    async def secure_router(self) -> dict[str, str]:
        """The environment that leads to a router whose port speaks TLS."""
        paths = HeroPaths(home=self.directory / "home", sockets=self.directory / "s")
        paths.ensure()
        ensure_master_identity(paths, [])
        sock = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sock.close)
        factory = GatewayFactory(self.gateway, secure=True)
        port: Any = listen_on(reactor, sock, factory, tls=ServerTls(paths.tls))
        self.addCleanup(port.stopListening)
        return {
            "HERO_URL": f"https://127.0.0.1:{sock.getsockname()[1]}",
            "HERO_TOKEN": "hero_operator",
            "HERO_CA": str(paths.tls / "ca.crt"),
        }

    async def test_end_of_input_leaves_the_answer_to_come(self) -> None:
        service = self.serve_tunnel()
        run = self.hero("tunnel", "demo/ssh", **await self.secure_router())
        run.transport.write(PIECE * 32)
        await self.happens(lambda: len(run.out) == len(PIECE) * 32)
        (client,) = self.gateway.connections
        self.assertEqual((client.secure, client.user), (True, "user:olga"))
        run.transport.closeStdin()
        (connection,) = service.connections
        await self.happens(lambda: connection.ended)
        connection.transport.write(PIECE * 32 + b"the last")
        connection.transport.loseConnection()
        await run.ended
        self.assertEqual((run.code, bytes(run.err)), (0, b""))
        self.assertEqual(bytes(run.out), PIECE * 64 + b"the last")

    async def test_service_that_has_ended_is_still_written_to(self) -> None:
        service = self.serve_tunnel()
        run = self.hero("tunnel", "demo/ssh", **await self.secure_router())
        run.transport.write(b"a")
        await self.happens(lambda: run.out == b"a")
        (connection,) = service.connections
        connection.transport.loseWriteConnection()
        await self.pause(0.1)
        run.transport.write(PIECE * 32 + b"the last")
        run.transport.closeStdin()
        await self.happens(lambda: connection.ended)
        self.assertEqual(connection.received, b"a" + PIECE * 32 + b"the last")
        connection.transport.loseConnection()
        await run.ended
        self.assertEqual((run.code, bytes(run.err)), (0, b""))

    async def test_connection_that_is_cut_off_is_an_error(self) -> None:
        self.serve_tunnel()
        run = self.hero("tunnel", "demo/ssh", **await self.secure_router())
        run.transport.write(b"a")
        await self.happens(lambda: run.out == b"a")
        run.out.clear()
        (client,) = self.gateway.connections
        # A FIN without close_notify: anybody on the way can send that.
        client.transport.socket.shutdown(socket.SHUT_WR)
        await self.assertFails(run, 5, "the tunnel was cut off")

    async def test_router_of_another_cluster_gets_no_token(self) -> None:
        self.serve_tunnel()
        environ = await self.secure_router()
        paths = HeroPaths(home=self.directory / "other", sockets=self.directory / "o")
        paths.ensure()
        ensure_master_identity(paths, [])
        environ["HERO_CA"] = str(paths.tls / "ca.crt")
        await self.assertFails(self.hero("tunnel", "demo/ssh", **environ), 4, "was refused")
        self.assertEqual(self.log, [])
