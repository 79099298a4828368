"""Taking ports, and saying why not."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hero.errors import InvalidConfiguration
from hero.router import listening
from hero.router.listening import FALLBACK_PORT, Listener, open_listener


class OpenListenerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-listen-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def open(self, spec: str) -> Any:
        listener = open_listener(spec)
        for sock in listener.sockets:
            self.addCleanup(sock.close)
        return listener

    def test_interface_and_kind_are_read(self) -> None:
        listener = self.open("tcp:0:interface=127.0.0.1")
        self.assertFalse(listener.secure)
        host, port = listener.sockets[0].getsockname()
        self.assertEqual(host, "127.0.0.1")
        self.assertEqual(listener.url, f"http://127.0.0.1:{port}")
        self.assertTrue(self.open("ssl:0").secure)
        self.assertRegex(self.open(r"ssl:0:interface=\:\:1").url, r"https://\[::1\]:\d+")

    def test_each_worker_has_a_socket_of_its_own_on_the_same_port(self) -> None:
        listener = self.open("tcp:0:interface=127.0.0.1").enough_for(3)
        for sock in listener.sockets[1:]:
            self.addCleanup(sock.close)
        self.assertEqual(len({sock.getsockname() for sock in listener.sockets}), 1)
        first, second, third = listener.sockets
        self.assertEqual(
            [listener.share_of(n, 3) for n in range(3)], [(first,), (second,), (third,)]
        )
        self.assertEqual(listener.share_of(0, 2), (first, third))

    def test_workers_share_a_socket_that_is_the_only_one(self) -> None:
        listener = self.open(f"unix:{self.directory}/door.sock").enough_for(2)
        self.assertEqual(len(listener.sockets), 1)
        self.assertEqual(listener.share_of(1, 2), listener.sockets)
        with socket.socket() as only:  # as passed by systemd: others may not use its port
            only.bind(("127.0.0.1", 0))
            only.listen()
            listener = Listener(spec="systemd:index=0", secure=True, sockets=(only,)).enough_for(2)
            self.assertEqual(listener.sockets, (only,))

    def test_unix_socket_is_made_with_its_mode_and_removed(self) -> None:
        path = self.directory / "door.sock"
        listener = self.open(f"unix:{path}:mode=660")
        self.assertFalse(listener.secure)
        self.assertEqual(listener.url, f"unix://{path}")
        self.assertEqual(stat.S_IMODE(path.lstat().st_mode), 0o660)
        error = self.assertRaises(InvalidConfiguration, open_listener, f"unix:{path}")
        self.assertIn("another process listens", error.detail)
        listener.remove()
        self.assertTrue(path.is_socket())  # somebody listens there still
        listener.sockets[0].close()
        again = self.open(f"unix:{path}")  # over the stale one
        self.assertEqual(stat.S_IMODE(path.lstat().st_mode), 0o600)
        again.sockets[0].close()
        again.remove()
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_file_in_the_place_of_a_unix_socket_is_kept(self) -> None:
        path = self.directory / "door.sock"
        path.write_text("precious")
        error = self.assertRaises(InvalidConfiguration, open_listener, f"unix:{path}")
        self.assertIn("is not a socket", error.detail)
        self.assertEqual(path.read_text(), "precious")
        error = self.assertRaises(InvalidConfiguration, open_listener, "unix:/no/such/place.sock")
        self.assertIn("cannot listen on /no/such/place.sock", error.detail)

    def test_nonsense_is_explained(self) -> None:
        for spec in ("443", "ssl:http", "tcp:70000", "udp:53", "ssl:443:backlog=3", "unix:here"):
            error = self.assertRaises(InvalidConfiguration, open_listener, spec)
            self.assertIn(spec, error.detail)
            self.assertIn("ssl:PORT", error.hint or "")

    def test_port_in_use_names_its_holder(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            error = self.assertRaises(
                InvalidConfiguration, open_listener, f"ssl:{port}:interface=127.0.0.1"
            )
        self.assertIn(f"port {port} is in use by", error.detail)
        self.assertIn(f"(process {os.getpid()})", error.detail)

    def test_443_falls_back_where_it_may_not_be_bound(self) -> None:
        bound: list[tuple[str, int]] = []

        def bind(interface: str, port: int) -> Any:
            bound.append((interface, port))
            if port < 1024:
                raise PermissionError(errno.EACCES, "Permission denied")
            return None

        self.patch(listening, "_bind", bind)
        listener = open_listener("ssl:443:interface=127.0.0.1")
        self.assertTrue(listener.secure)
        self.assertEqual(listener.spec, "ssl:443:interface=127.0.0.1")
        self.assertEqual(bound, [("127.0.0.1", 443), ("127.0.0.1", FALLBACK_PORT)])
        for spec in ("ssl:80", "tcp:443"):
            error = self.assertRaises(InvalidConfiguration, open_listener, spec)
            self.assertIn("may not be bound", error.detail)

    def test_443_in_use_does_not_fall_back(self) -> None:
        def bind(interface: str, port: int) -> Any:
            raise InvalidConfiguration(f"port {port} is in use by nginx (process 1)")

        self.patch(listening, "_bind", bind)
        error = self.assertRaises(InvalidConfiguration, open_listener, "ssl:443")
        self.assertIn("port 443 is in use by nginx", error.detail)
