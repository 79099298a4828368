"""What the socket directory holds, and how soon the router knows."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hero.router.discovery import Discovery, Found, Key, scan

MINE = frozenset({os.geteuid()})
#: Events that the kernel keeps for one who does not read them.
QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


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

    def test_manifest_beside_a_socket_belongs_to_it(self) -> None:
        make_socket(self.directory / "shop/api.sock")
        make_socket(self.directory / "shop/web.sock")
        manifest = self.directory / "shop/api.json"
        manifest.write_text("{}")
        (self.directory / "shop/other.json").write_text("{}")
        found = scan(self.directory, MINE)
        self.assertEqual(set(found), {("shop", "api"), ("shop", "web")})
        status = manifest.stat()
        self.assertEqual(
            found["shop", "api"].manifest,
            (manifest, (status.st_dev, status.st_ino, status.st_ctime_ns)),
        )
        self.assertIsNone(found["shop", "web"].manifest)

    def test_socket_with_a_manifest_that_cannot_be_trusted_is_refused(self) -> None:
        """Who may call stands in it: doing as if there were none could open the door."""
        make_socket(self.directory / "shop/api.sock")
        make_socket(self.directory / "shop/web.sock")
        (self.directory / "shop/api.json").symlink_to("elsewhere.json")
        (self.directory / "shop/web.json").mkdir()
        self.assertRefused(("shop", "api"), "its manifest api.json cannot be used: it is a symb")
        self.assertRefused(("shop", "web"), "its manifest web.json cannot be used: it is not a")

    def test_socket_goes_before_what_is_none(self) -> None:
        make_socket(self.directory / "shop/api.sock")
        (self.directory / "shop/api").mkdir()
        (self.directory / "shop/web").touch()
        (self.directory / "shop/web.sock").touch()
        self.assertIsNone(scan(self.directory, MINE)["shop", "api"].refused)
        self.assertRefused(("shop", "web"), "it is not a socket")

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
    """Without sweeps, only inotify can tell."""

    timeout = 30

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hero-found-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.sockets = self.directory / "sockets"
        self.found: dict[Key, Found] = {}
        self.changes: list[set[Key]] = []

    def start(self, reactor: Any, **more: Any) -> Discovery:
        discovery = Discovery(reactor, self.sockets, self._changed, **more)
        discovery.startService()
        self.addCleanup(discovery.stopService)
        return discovery

    def start_without_sweeps(self) -> Discovery:
        return self.start(reactor, rescan=3600)

    def _changed(self, found: Mapping[Key, Found], changed: set[Key]) -> None:
        for key in changed:
            self.assertNotEqual(self.found.get(key), found.get(key), key)
        self.found = dict(found)
        self.changes.append(changed)

    async def _until(self, condition: Any) -> None:
        while not condition():
            await deferLater(reactor, 0.002)

    async def test_new_services_and_sockets_are_seen_by_inotify(self) -> None:
        self.start_without_sweeps()
        make_socket(self.sockets / "shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)
        make_socket(self.sockets / "shop/web.sock")
        await self._until(lambda: ("shop", "web") in self.found)
        (self.sockets / "shop/api.sock").unlink()
        await self._until(lambda: ("shop", "api") not in self.found)
        shutil.rmtree(self.sockets / "shop")
        await self._until(lambda: not self.found)
        make_socket(self.sockets / "shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)

    async def test_directories_made_before_and_after_the_watch_are_alike(self) -> None:
        (self.sockets / "before").mkdir(parents=True)
        self.start_without_sweeps()
        (self.sockets / "after").mkdir()
        await deferLater(reactor, 0.05)
        make_socket(self.sockets / "before/api.sock")
        make_socket(self.sockets / "after/api.sock")
        await self._until(lambda: set(self.found) == {("before", "api"), ("after", "api")})

    async def test_socket_renamed_into_place_is_seen(self) -> None:
        self.start_without_sweeps()
        make_socket(self.sockets / "shop/.new")
        (self.sockets / "shop/.new").rename(self.sockets / "shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)

    async def test_service_restarted_with_a_new_socket_is_another(self) -> None:
        make_socket(self.sockets / "shop/api.sock")
        self.start_without_sweeps()
        before = self.found["shop", "api"]
        make_socket(self.sockets / "shop/.new")
        (self.sockets / "shop/.new").rename(self.sockets / "shop/api.sock")
        await self._until(lambda: self.found["shop", "api"].identity != before.identity)

    async def test_only_what_changed_is_told(self) -> None:
        make_socket(self.sockets / "shop/api.sock")
        make_socket(self.sockets / "bank/api.sock")
        self.start_without_sweeps()
        self.assertEqual(self.changes, [{("shop", "api"), ("bank", "api")}])
        make_socket(self.sockets / "shop/web.sock")
        await self._until(lambda: len(self.changes) > 1)
        self.assertEqual(self.changes[1:], [{("shop", "web")}])

    async def test_events_are_answered_by_a_look_at_what_they_name(self) -> None:
        """However many other sockets there are."""
        for number in range(50):
            make_socket(self.sockets / f"shop/s{number}.sock")
            make_socket(self.sockets / f"t{number}/api.sock")
        self.start_without_sweeps()
        looked: list[str] = []
        lstat = os.lstat
        self.patch(os, "lstat", lambda path: looked.append(str(path)) or lstat(path))
        make_socket(self.sockets / "shop/new.sock")
        await self._until(lambda: ("shop", "new") in self.found)
        self.assertEqual(set(looked), {str(self.sockets / "shop/new.sock")})

    async def test_manifest_that_changes_changes_its_route(self) -> None:
        make_socket(self.sockets / "shop/api.sock")
        self.start_without_sweeps()
        manifest = self.sockets / "shop/api.json"
        manifest.write_text("{}")
        await self._until(lambda: self.found["shop", "api"].manifest is not None)
        await deferLater(reactor, 0.02)
        before = self.found["shop", "api"]
        manifest.write_text('{"access": "public"}')
        await self._until(lambda: self.found["shop", "api"].manifest != before.manifest)
        self.assertEqual(self.found["shop", "api"].identity, before.identity)
        manifest.unlink()
        await self._until(lambda: self.found["shop", "api"].manifest is None)

    async def test_directory_that_was_renamed_is_still_watched(self) -> None:
        make_socket(self.sockets / "shop/api.sock")
        self.start_without_sweeps()
        (self.sockets / "shop").rename(self.sockets / "store")
        await self._until(lambda: set(self.found) == {("store", "api")})
        make_socket(self.sockets / "store/web.sock")
        await self._until(lambda: ("store", "web") in self.found)
        make_socket(self.sockets / "shop/new.sock")
        await self._until(lambda: ("shop", "new") in self.found)

    async def test_directory_that_became_a_link_is_refused_and_left(self) -> None:
        make_socket(self.sockets / "shop/api.sock")
        make_socket(self.directory / "elsewhere/api.sock")
        self.start_without_sweeps()
        shutil.rmtree(self.sockets / "shop")
        (self.sockets / "shop").symlink_to(self.directory / "elsewhere")
        await self._until(lambda: set(self.found) == {("shop", "")})
        make_socket(self.directory / "elsewhere/web.sock")
        (self.sockets / "shop").unlink()
        await self._until(lambda: not self.found)

    def test_sweep_finds_what_inotify_missed(self) -> None:
        class NoInotify(Clock):
            def addReader(self, reader: Any) -> None:
                """Nothing is ever read."""

            removeReader = removeWriter = addReader

        clock = NoInotify()
        self.start(clock)
        make_socket(self.sockets / "shop/api.sock")
        clock.advance(4)
        self.assertEqual(self.found, {})
        clock.advance(1)
        self.assertEqual(list(self.found), [("shop", "api")])

    def test_sweep_over_many_lets_others_have_their_turn(self) -> None:
        class Slow(Clock):
            """Each look at the time is a millisecond later."""

            def seconds(self) -> float:
                self.rightNow += 0.001
                return self.rightNow

            def addReader(self, reader: Any) -> None:
                """Nothing is ever read."""

            removeReader = removeWriter = addReader

        clock = Slow()
        discovery = self.start(clock)
        for number in range(50):
            make_socket(self.sockets / f"s{number}/api.sock")
        discovery._begin_sweep()
        self.assertTrue(0 < len(self.found) < 10, len(self.found))
        for _ in range(50):
            clock.advance(0)
        self.assertEqual(len(self.found), 50)

    async def test_directory_made_again_while_events_were_lost_is_watched_again(self) -> None:
        discovery = self.start_without_sweeps()
        make_socket(self.sockets / "shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)
        assert discovery._inotify is not None
        shutil.rmtree(self.sockets / "shop")
        make_socket(self.sockets / "shop/new.sock")
        os.read(discovery._inotify.fileno(), 65536)  # as when the queue overflows
        discovery.look()
        self.assertEqual(list(self.found), [("shop", "new")])
        make_socket(self.sockets / "shop/web.sock")
        await self._until(lambda: ("shop", "web") in self.found)

    async def test_overflow_of_the_queue_is_followed_by_a_look_at_everything(self) -> None:
        discovery = self.start_without_sweeps()
        make_socket(self.sockets / "shop/api.sock")
        await self._until(lambda: ("shop", "api") in self.found)
        discovery._inotify.stopReading()
        make_socket(self.sockets / "shop/web.sock")
        make_socket(self.sockets / "bank/api.sock")
        os.read(discovery._inotify.fileno(), 65536)
        last = self.sockets / "shop/last"
        for _ in range(QUEUE // 2 + 1):
            last.touch()  # two different events at least, so that they are not merged
            last.unlink()
        discovery._inotify.startReading()
        await self._until(lambda: ("bank", "api") in self.found)
        self.assertEqual(set(self.found), {("shop", "api"), ("shop", "web"), ("bank", "api")})

    async def test_socket_directory_that_is_replaced_is_watched_again(self) -> None:
        make_socket(self.sockets / "shop/api.sock")
        discovery = self.start_without_sweeps()
        self.sockets.rename(self.directory / "old")
        await self._until(lambda: not self.found)
        make_socket(self.sockets / "bank/api.sock")
        discovery.look()
        make_socket(self.sockets / "bank/web.sock")
        await self._until(lambda: set(self.found) == {("bank", "api"), ("bank", "web")})

    def test_nothing_is_told_when_nothing_changed(self) -> None:
        make_socket(self.sockets / "shop/api.sock")
        discovery = self.start_without_sweeps()
        before = len(self.changes)
        discovery.look()
        self.assertEqual(len(self.changes), before)

    async def test_thousands_that_come_and_go_are_kept_up_with(self) -> None:
        """2,000 sockets in one directory and in as many; what is found is what is there."""
        for number in range(1000):
            make_socket(self.sockets / f"shop/s{number}.sock")
            make_socket(self.sockets / f"t{number}/api.sock")
        self.start(reactor, rescan=0.2)
        self.assertEqual(len(self.found), 2000)
        for number in range(0, 400, 2):
            (self.sockets / f"shop/s{number}.sock").unlink()
            make_socket(self.sockets / f"shop/s{number + 1000}.sock")
            shutil.rmtree(self.sockets / f"t{number}")
            make_socket(self.sockets / f"u{number}/api.sock")
            if number % 20 == 0:
                await deferLater(reactor, 0.01)
        await self._until(lambda: self.found == scan(self.sockets, frozenset({0, os.geteuid()})))
        self.assertEqual(len(self.found), 2000)
