"""SIGHUP: settings and certificates change, connections stay."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess

from cryptography import x509
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from hero.identity.certificates import read_addresses
from tests.router.backend import H11Service
from tests.router.processes import ProcessCase


class Client:
    """A TLS connection that is kept."""

    def __init__(self, port: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.sock = context.wrap_socket(sock)
        certificate = self.sock.getpeercert(binary_form=True)
        assert certificate is not None
        self.certificate = x509.load_der_x509_certificate(certificate)

    def status(self, path: bytes) -> bytes:
        """Ask for *path* on the one connection; returns the status."""
        self.sock.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        received = b""
        while b"\r\n\r\n" not in received:
            data = self.sock.recv(65536)
            if not data:
                raise AssertionError("closed")
            received += data
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self.sock.recv(65536)
        return head.split(b" ")[1]


class ReloadTests(ProcessCase):
    def setUp(self) -> None:
        super().setUp()
        plain = reactor.listenUNIX(str(self.sockets / "demo/plain.sock"), H11Service())
        self.addCleanup(plain.stopListening)

    def write_settings(self, *lines: str) -> None:
        file = self.home / "cfg/hero.env"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))

    async def start(self) -> int:
        self.router = self.run_router("--listen", "ssl:0:interface=127.0.0.1")
        return await self.port(self.router)

    async def hang_up(self, says: str, router: subprocess.Popen[bytes] | None = None) -> None:
        """Send SIGHUP, and wait until the router says this once more."""
        before = self.said().count(says)
        (router or self.router).send_signal(signal.SIGHUP)
        await self.until(lambda: self.said().count(says) > before, says)

    async def connect(self, port: int) -> Client:
        client = await deferToThread(Client, port)
        self.addCleanup(client.sock.close)
        return client

    async def status(self, client: Client, path: bytes) -> bytes:
        return await deferToThread(client.status, path)

    async def test_who_may_call_changes_under_connections_that_stay(self) -> None:
        client = await self.connect(await self.start())
        self.assertEqual(await self.status(client, b"/demo/plain/"), b"401")
        self.write_settings("HERO_ACCESS=public")
        await self.hang_up("settings reloaded")
        await self.until_status(client, b"/demo/plain/", b"200")
        self.write_settings("HERO_ACCESS=everyone")
        await self.hang_up("settings not reloaded: --access is cluster or public")
        self.assertEqual(await self.status(client, b"/demo/plain/"), b"200")

    async def until_status(self, client: Client, path: bytes, wanted: bytes) -> None:
        while await self.status(client, path) != wanted:
            self.assertIsNone(self.router.poll())

    async def test_certificate_for_a_new_address_is_shown_to_new_connections(self) -> None:
        port = await self.start()
        client = await self.connect(port)
        self.assertNotIn("node.example", read_addresses(client.certificate))
        self.write_settings("HERO_COMPUTE_ADVERTISE_ADDRESS=https://node.example:9998")
        await self.hang_up("settings reloaded")
        self.assertIn("node.example", read_addresses((await self.connect(port)).certificate))
        self.assertEqual(await self.status(client, b"/demo/web/"), b"200")

    async def test_certificate_that_cannot_be_used_leaves_the_old_one(self) -> None:
        port = await self.start()
        client = await self.connect(port)
        (self.home / "cfg/tls/node.crt").write_text("rubbish")
        await self.hang_up("certificate not reloaded: ")
        another = await self.connect(port)
        self.assertEqual(another.certificate, client.certificate)
        self.assertEqual(await self.status(client, b"/demo/web/"), b"200")
        self.assertEqual(await self.status(another, b"/demo/web/"), b"200")

    async def test_limits_change_for_what_comes(self) -> None:
        port = await self.start()
        client = await self.connect(port)
        self.write_settings("HERO_LIMITS=connections=1")
        await self.hang_up("settings reloaded")
        with self.assertRaises(OSError):
            await self.connect(port)
        self.assertEqual(await self.status(client, b"/demo/web/"), b"200")
        self.write_settings("HERO_LIMITS=conections=5")
        await self.hang_up("settings not reloaded: --limits: there is no limit 'conections'")
        self.write_settings("")
        await self.hang_up("settings reloaded")
        await self.connect(port)

    async def test_what_takes_a_restart_is_said(self) -> None:
        await self.start()
        self.write_settings("HERO_LISTEN=ssl:1", "HERO_MODE=master")
        await self.hang_up("--mode has changed: that takes hero router restart")
