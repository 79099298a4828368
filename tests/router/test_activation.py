"""What systemd passes and is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hero.errors import InvalidConfiguration
from hero.router.activation import Inherited, inherited_socket, inherited_sockets, notify

ROOT = Path(__file__).parents[2]

#: Makes a listening socket and another, passes them as systemd does, and prints what is found.
STARTED = """
import os, socket
first, second = socket.socket(), socket.socket(socket.AF_UNIX)
first.bind(("127.0.0.1", 0)); first.listen()
os.dup2(first.fileno(), 3); os.dup2(second.fileno(), 4)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "https:door"}
from hero.router.activation import inherited_sockets
for one in inherited_sockets(environ):
    print(one.name, one.sock.family.name, one.sock.fileno(), one.sock.get_inheritable())
print(environ, inherited_sockets(environ))
"""


class InheritedSocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.passed = [
            self.listening("https", socket.AF_INET),
            self.listening("https", socket.AF_INET6),
            self.listening("door", socket.AF_UNIX),
        ]

    def listening(self, name: str, family: int) -> Inherited:
        sock = socket.socket(family)
        self.addCleanup(sock.close)
        if family == socket.AF_UNIX:
            sock.bind("")
        sock.listen()
        return Inherited(name, sock)

    def assert_refused(self, spec: str, reason: str, hint: str = "") -> None:
        error = self.assertRaises(InvalidConfiguration, inherited_socket, spec, self.passed)
        self.assertIn(reason, error.detail)
        self.assertIn(hint, error.hint or "")

    def test_socket_is_chosen_by_name_or_place(self) -> None:
        inet, inet6, door = (one.sock for one in self.passed)
        for spec, sock, secure in [
            ("systemd:domain=INET:index=0", inet, True),
            ("systemd:index=1", inet6, True),
            ("systemd:name=https:index=1", inet6, True),
            ("systemd:name=https:index=0:tls=no", inet, False),
            ("systemd:name=door", door, False),
            ("systemd:domain=UNIX:index=2:tls=no", door, False),
        ]:
            self.assertEqual(inherited_socket(spec, self.passed), (sock, secure), spec)

    def test_what_is_wrong_is_said(self) -> None:
        self.assert_refused("systemd:https", "'https' in 'systemd:https'", "systemd:name=NAME")
        self.assert_refused("systemd:", "is not understood")
        self.assert_refused("systemd:index=x", "is not understood")
        self.assert_refused("systemd:index=0:index=1", "is not understood")
        self.assert_refused("systemd:name=http", "0 (https), 1 (https), 2 (door)")
        self.assert_refused("systemd:index=3", "0 (https), 1 (https), 2 (door)")
        self.assert_refused("systemd:name=https", "2 sockets named https", ":index=0 to :index=1")
        self.assert_refused("systemd:index=2:domain=INET", "of another domain than INET")
        self.assert_refused("systemd:name=door:tls=yes", "on TCP sockets only")
        self.passed = [Inherited("dgram", socket.socket(socket.AF_INET, socket.SOCK_DGRAM))]
        self.addCleanup(self.passed[0].sock.close)
        self.assert_refused("systemd:index=0", "accepts no connections", "ListenStream=")
        self.passed = []
        self.assert_refused("systemd:index=0", "systemd passed none", "hero-router.socket")

    def test_sockets_come_with_their_names_and_once(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", STARTED],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(
            done.stdout, "https AF_INET 3 False\ndoor AF_UNIX 4 False\n{} []\n", done.stderr
        )

    def test_sockets_of_another_process_are_not_taken(self) -> None:
        environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
        self.assertEqual(inherited_sockets(environ), [])
        self.assertEqual(environ, {"HOME": "/"})


class NotifyTests(SynchronousTestCase):
    def test_state_is_sent_to_the_socket_that_is_named(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("")
            address = "@" + manager.getsockname()[1:].decode()
            notify({"NOTIFY_SOCKET": address}, READY=1, MAINPID=5)
            self.assertEqual(manager.recv(100), b"READY=1\nMAINPID=5")

    def test_nobody_to_tell_is_no_error(self) -> None:
        notify({}, READY=1)
        notify({"NOTIFY_SOCKET": "/no/such/socket"}, READY=1)
