"""The route table: what a change of the socket directory changes, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hero.router.entries import Found, Key
from hero.router.model import RouteState
from hero.router.routes import RouteTable


class Pool:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Route:
    """A route whose manifest arrives when the test says so."""

    unclear = False
    state = RouteState.DOWN

    def __init__(self, found: Found) -> None:
        self.service, self.socket = found.path.parent.name, found.path.stem
        self.pool = Pool()
        self.waiting: list[Callable[[], None]] = []
        self.asked = 0

    def when_known(self, callback: Callable[[], None]) -> None:
        self.asked += 1
        self.waiting.append(callback)

    def know(self) -> None:
        waiting, self.waiting = self.waiting, []
        for callback in waiting:
            callback()


def sockets(*names: str, inode: int = 1, **more: Any) -> dict[Key, Found]:
    return {
        ("shop", name): Found(path=Path(f"/s/shop/{name}.sock"), identity=(1, inode, 1), **more)
        for name in names
    }


class RouteTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.made: list[Any] = []
        self.later: list[Callable[[], None]] = []
        self.table = RouteTable(self.make, self.later.append)

    def make(self, found: Found) -> Any:
        self.made.append(Route(found))
        return self.made[-1]

    def have_turn(self) -> None:
        while self.later:
            self.later.pop(0)()

    def test_routes_that_did_not_change_stay_as_they_are(self) -> None:
        self.table.update(sockets("a", "b"))
        stays = self.table.lookup("shop", "a")
        self.table.update(sockets("a") | sockets("b", inode=2) | sockets("c"))
        self.assertIs(self.table.lookup("shop", "a"), stays)
        self.assertEqual(sorted(route.socket for route in self.made), ["a", "b", "b", "c"])
        self.assertEqual([r.socket for r in self.made if r.pool.closed], ["b"])
        self.table.update(sockets("c"))
        self.assertIsNone(self.table.lookup("shop", "a"))
        self.assertTrue(stays.pool.closed)

    def test_changed_manifest_file_makes_another_route(self) -> None:
        self.table.update(sockets("a"))
        self.table.update(sockets("a", manifest=(Path("/s/shop/a.json"), (1, 2, 3))))
        self.assertEqual(len(self.made), 2)
        self.assertTrue(self.made[0].pool.closed)

    def test_only_what_is_said_to_have_changed_is_compared(self) -> None:
        self.table.update(sockets("a", "b"))
        self.table.update(sockets("a", "b", inode=2), {("shop", "b")})
        self.assertEqual(sorted(route.socket for route in self.made), ["a", "b", "b"])

    def test_entry_that_is_refused_now_has_no_route(self) -> None:
        self.table.update(sockets("a"))
        self.table.update(sockets("a", refused="it is a symbolic link"))
        self.assertEqual(len(self.table), 0)
        self.assertEqual(self.table.count(RouteState.REFUSED), 1)

    def test_manifests_of_many_are_read_a_few_at_a_time(self) -> None:
        self.table.update(sockets(*(f"s{n}" for n in range(100))))
        self.assertEqual(sum(route.asked for route in self.made), 0)
        most = 0
        while any(not route.asked or route.waiting for route in self.made):
            self.have_turn()
            reading = [route for route in self.made if route.waiting]
            most = max(most, len(reading))
            for route in reading[:10]:
                route.know()
        self.assertEqual({route.asked for route in self.made}, {1})
        self.assertLessEqual(most, 32)
        self.assertGreater(most, 8)

    def test_manifest_of_a_route_that_went_is_not_asked_for(self) -> None:
        self.table.update(sockets("a"))
        self.table.update({})
        self.have_turn()
        self.assertEqual(self.made[0].asked, 0)

    def test_routes_that_are_down_are_asked_again(self) -> None:
        self.table.update(sockets("a", "b"))
        self.have_turn()
        for route in self.made:
            route.know()
        up, down = self.made
        up.state = RouteState.UP
        self.table.probe()
        self.have_turn()
        self.assertEqual((up.asked, down.asked), (1, 2))
