"""What the socket directory holds, and how soon the router knows."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hero.router.discovery import Discovery, Found, Key, scan

MINE = frozenset({os.geteuid()})


def make_socket(path: Path) -> None:
    """A socket at *path*, on which nobody listens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


class ScanTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-scan-"))
        self.addCleanup(shutil.rmtree, self.directory, True)

    def assertRefused(self, key: Key, reason: str, owners: frozenset[int] = MINE) -> None:
        found = scan(self.directory, owners)[key]
        self.assertIn(reason, found.refused or "")

    def test_socket_is_found(self) -> None:
        make_socket(self.directory / "shop/api.v2.sock")
        found = scan(self.directory, MINE)
        self.assertEqual(list(found), [("shop", "api.v2")])
        self.assertIsNone(found["shop", "api.v2"].refused)

    def test_file_is_refused(self) -> None:
        (self.directory / "shop").mkdir()
        (self.directory / "shop/api.sock").touch()
        self.assertRefused(("shop", "api"), "not a socket")

    def test_link_to_a_socket_is_refused(self) -> None:
        make_socket(self.directory / "shop/api.sock")
        (self.directory / "shop/too.sock").symlink_to("api.sock")
        self.assertRefused(("shop", "too"), "symbolic link")

    def test_link_to_a_directory_is_refused(self) -> None:
        make_socket(self.directory / "shop/api.sock")
        (self.directory / "two").symlink_to("shop")
        self.assertRefused(("two", ""), "symbolic link")

    def test_foreign_owner_is_refused(self) -> None:
        make_socket(self.directory / "shop/api.sock")
        self.assertRefused(("shop", ""), "belongs to user", frozenset({12345}))

    def test_bad_names_are_refused(self) -> None:
        make_socket(self.directory / "shop/a b.sock")
        make_socket(self.directory / "shop/_api.sock")
        make_socket(self.directory / "shop/api")
        make_socket(self.directory / "a~b/api.sock")
        self.assertRefused(("shop", "a b"), "name does not match")
        self.assertRefused(("shop", "_api"), "name does not match")
        self.assertRefused(("shop", "api"), "does not end in .sock")
        self.assertRefused(("a~b", ""), "name does not match")

    def test_names_that_are_no_text_can_be_shown(self) -> None:
        service = self.directory / "shop"
        service.mkdir()
        os.mkdir(os.fsencode(self.directory) + b"/sh\xf6p")
        os.mkdir(os.fsencode(service) + b"/\xff.sock")
        for (service_name, socket_name), found in scan(self.directory, MINE).items():
            for shown in (service_name, socket_name, str(found.path)):
                shown.encode()
        self.assertRefused(("sh\\xf6p", ""), "name does not match")
        self.assertRefused(("shop", "\\xff"), "not a socket")

    def test_path_too_long_for_an_address_is_refused(self) -> None:
        room = 108 - len(str(self.directory)) - len("/shop/.sock")
        service = self.directory / "shop"
        service.mkdir()
        here = os.open(service, os.O_RDONLY)
        name = "a" * min(room, 60)
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(f"/proc/self/fd/{here}/{name}.sock")
        finally:
            os.close(here)
        long = self.directory.with_name(self.directory.name + "x" * 60)
        self.directory.rename(long)
        self.addCleanup(shutil.rmtree, long, True)
        self.directory = long
        self.assertRefused(("shop", name), "longer than")

    def test_hidden_names_are_not_looked_at(self) -> None:
        make_socket(self.directory / "shop/.new.sock")
        make_socket(self.directory / ".shop/api.sock")
        self.assertEqual(scan(self.directory, MINE), {})

    def test_absent_directory_is_empty(self) -> None:
        self.assertEqual(scan(self.directory / "no", MINE), {})

    def test_socket_that_was_replaced_is_another(self) -> None:
        path = self.directory / "shop/api.sock"
        make_socket(path)
        before = scan(self.directory, MINE)
        path.rename(path.with_name(".old"))
        make_socket(path)
        after = scan(self.directory, MINE)
        self.assertNotEqual(before["shop", "api"].identity, after["shop", "api"].identity)


class DiscoveryTests(TestCase):
    """With a clock that stands still, only inotify can tell."""

    timeout = 10

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-found-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.found: dict[Key, Found] = {}
        self.changes = 0

    def start(self, reactor: Any) -> Discovery:
        discovery = Discovery(reactor, self.directory / "sockets", self._changed)
        discovery.startService()
        self.addCleanup(discovery.stopService)
        return discovery

    def _changed(self, found: dict[Key, Found]) -> None:
        self.found = found
        self.changes += 1

    async def _until(self, condition: Any) -> None:
        while not condition():
            await deferLater(reactor, 0.002)

    async def test_new_services_and_sockets_are_seen_by_inotify(self) -> None:
        discovery = self.start(reactor)
        discovery._looping.stop()
        make_socket(self.directory / "sockets/shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)
        make_socket(self.directory / "sockets/shop/web.sock")
        await self._until(lambda: ("shop", "web") in self.found)
        (self.directory / "sockets/shop/api.sock").unlink()
        await self._until(lambda: ("shop", "api") not in self.found)
        shutil.rmtree(self.directory / "sockets/shop")
        await self._until(lambda: not self.found)
        make_socket(self.directory / "sockets/shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)

    async def test_socket_renamed_into_place_is_seen(self) -> None:
        discovery = self.start(reactor)
        discovery._looping.stop()
        make_socket(self.directory / "sockets/shop/.new")
        (self.directory / "sockets/shop/.new").rename(self.directory / "sockets/shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)

    def test_rescan_finds_what_inotify_missed(self) -> None:
        class NoInotify(Clock):
            def addReader(self, reader: Any) -> None:
                """Nothing is ever read."""

            removeReader = removeWriter = addReader

        clock = NoInotify()
        self.start(clock)
        make_socket(self.directory / "sockets/shop/api.sock")
        clock.advance(4)
        self.assertEqual(self.found, {})
        clock.advance(1)
        self.assertEqual(list(self.found), [("shop", "api")])

    async def test_directory_made_again_while_events_were_lost_is_watched_again(self) -> None:
        discovery = self.start(reactor)
        discovery._looping.stop()
        make_socket(self.directory / "sockets/shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)
        assert discovery._notifier is not None
        shutil.rmtree(self.directory / "sockets/shop")
        make_socket(self.directory / "sockets/shop/new.sock")
        os.read(discovery._notifier.fileno(), 65536)  # as when the queue overflows
        discovery.look()
        self.assertEqual(list(self.found), [("shop", "new")])
        make_socket(self.directory / "sockets/shop/web.sock")
        await self._until(lambda: ("shop", "web") in self.found)

    def test_nothing_is_told_when_nothing_changed(self) -> None:
        discovery = self.start(reactor)
        before = self.changes
        discovery.look()
        self.assertEqual(self.changes, before)
