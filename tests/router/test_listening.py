"""Taking ports, and saying why not."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hero.errors import InvalidConfiguration
from hero.router import listening
from hero.router.listening import FALLBACK_PORT, open_listener


class OpenListenerTests(SynchronousTestCase):
    def open(self, spec: str) -> Any:
        listener = open_listener(spec)
        if listener.sock is not None:
            self.addCleanup(listener.sock.close)
        return listener

    def test_interface_and_kind_are_read(self) -> None:
        listener = self.open("tcp:0:interface=127.0.0.1")
        self.assertFalse(listener.secure)
        self.assertEqual(listener.sock.getsockname()[0], "127.0.0.1")
        self.assertTrue(self.open("ssl:0").secure)

    def test_systemd_is_left_to_twisted(self) -> None:
        listener = open_listener("systemd:domain=INET:index=0")
        self.assertTrue(listener.secure)
        self.assertEqual(listener.description, "systemd:domain=INET:index=0")

    def test_nonsense_is_explained(self) -> None:
        for spec in ("443", "ssl:http", "tcp:70000", "udp:53", "ssl:443:backlog=3"):
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
        self.assertTrue(open_listener("ssl:443:interface=127.0.0.1").secure)
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
