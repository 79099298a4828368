"""What tests of programs around Hero can use: verified fakes, and the suites that verify them."""

# trial's assertions have no annotations.
# mypy: disallow-untyped-calls = False

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from hero.compute.guest import GuestObservation, GuestSpec, GuestState, StopReason
from hero.compute.hypervisor.memory import MemoryHypervisor
from hero.compute.interfaces import IHypervisor
from hero.errors import Conflict, NotFound

__all__ = ["HypervisorFixture", "MemoryHypervisor", "make_ihypervisor_tests"]


class HypervisorFixture(Protocol):
    """What the suite needs to know about the hypervisor under test.

    What `power_off`, `crash` and `reaches_console` return is over when that has happened and the
    hypervisor could see it.
    """

    hypervisor: Any

    def spec(self, sid: str, name: str) -> GuestSpec:
        """A guest that can be started."""

    def reopen(self) -> None:
        """Let go of the guests, and make `hypervisor` a new one that finds the same guests."""

    async def reaches_console(self, sid: str, text: bytes) -> None:
        """Wait until the guest printed *text*, with a time limit."""

    async def power_off(self, sid: str) -> None:
        """Let the guest power itself off."""

    async def crash(self, sid: str) -> None:
        """Let what runs the guest die."""

    async def make_deaf(self, sid: str) -> None:
        """Let the guest ignore that it is asked to power off."""


def make_ihypervisor_tests(
    make_fixture: Callable[[TestCase], Coroutine[Any, Any, HypervisorFixture]],
) -> type[TestCase]:
    """A test case that says whether a hypervisor keeps what `IHypervisor` promises.

    *make_fixture* is called for each test and adds its own clean-up to the test case it is given.
    """

    class IHypervisorTests(TestCase):
        """Promises of `IHypervisor`."""

        fixture: HypervisorFixture

        def setUp(self) -> Deferred[None]:  # type: ignore[override]
            async def prepare() -> None:
                self.fixture = await make_fixture(self)

            return Deferred.fromCoroutine(prepare())

        async def _started(self, sid: str = "vm-1") -> GuestObservation:
            spec = self.fixture.spec(sid, f"name-of-{sid}")
            started: GuestObservation = await self.fixture.hypervisor.start(spec)
            await self.fixture.reaches_console(sid, f"hero micro: {spec.name} ready".encode())
            return started

        async def _seen(self, sid: str = "vm-1") -> GuestObservation:
            observations: dict[str, GuestObservation]
            observations = await self.fixture.hypervisor.observe()
            return observations[sid]

        async def _assert_seen(
            self, state: GuestState, reason: StopReason | None = None, sid: str = "vm-1"
        ) -> None:
            seen = await self._seen(sid)
            self.assertEqual((seen.state, seen.reason), (state, reason))

        def test_provides_interface(self) -> None:
            """It has the methods of `IHypervisor`, with their signatures."""
            verifyObject(IHypervisor, self.fixture.hypervisor)

        async def test_knows_nobody_at_first(self) -> None:
            """There are no guests until one is made."""
            self.assertEqual(await self.fixture.hypervisor.observe(), {})

        async def test_disk_makes_guest_known(self) -> None:
            """A guest with a disk is known, and was never started."""
            await self.fixture.hypervisor.create_disk(self.fixture.spec("vm-1", "one"))
            await self.fixture.hypervisor.create_disk(self.fixture.spec("vm-1", "one"))
            await self._assert_seen(GuestState.STOPPED, StopReason.NEVER_STARTED)

        async def test_life(self) -> None:
            """A guest is started, paused, resumed and stopped, each of them harmless twice."""
            hypervisor = self.fixture.hypervisor
            started = await self._started()
            self.assertEqual(started.state, GuestState.RUNNING)
            self.assertIsNotNone(started.started_at)
            again = await hypervisor.start(self.fixture.spec("vm-1", "name-of-vm-1"))
            self.assertEqual((again.pid, again.started_at), (started.pid, started.started_at))
            for _ in range(2):
                await hypervisor.pause("vm-1")
                await self._assert_seen(GuestState.PAUSED)
            for _ in range(2):
                await hypervisor.resume("vm-1")
                await self._assert_seen(GuestState.RUNNING)
            stats = await hypervisor.stats("vm-1")
            self.assertEqual(stats.state, GuestState.RUNNING)
            self.assertGreater(stats.memory_resident, 0)
            for _ in range(2):
                self.assertEqual(await hypervisor.stop("vm-1", 30.0), StopReason.STOPPED)
                await self._assert_seen(GuestState.STOPPED, StopReason.STOPPED)
            stats = await hypervisor.stats("vm-1")
            self.assertEqual((stats.memory_resident, stats.uptime), (0, None))

        async def test_console_goes_on_over_restarts(self) -> None:
            """What a guest prints after a restart follows what it printed before."""
            await self._started()
            await self.fixture.hypervisor.kill("vm-1")
            path = self.fixture.hypervisor.console_path("vm-1")
            before = path.read_bytes()
            await self.fixture.hypervisor.start(self.fixture.spec("vm-1", "second"))
            await self.fixture.reaches_console("vm-1", b"hero micro: second ready")
            self.assertTrue(path.read_bytes().startswith(before))

        async def test_deaf_guest_is_killed(self) -> None:
            """A guest that does not power off when asked loses its power."""
            await self._started()
            await self.fixture.make_deaf("vm-1")
            self.assertEqual(await self.fixture.hypervisor.stop("vm-1", 0.2), StopReason.KILLED)
            await self._assert_seen(GuestState.STOPPED, StopReason.KILLED)

        async def test_paused_guest_is_killed(self) -> None:
            """A paused guest cannot be asked, and a kill is harmless twice."""
            await self._started()
            await self.fixture.hypervisor.pause("vm-1")
            self.assertEqual(await self.fixture.hypervisor.stop("vm-1", 30.0), StopReason.KILLED)
            await self.fixture.hypervisor.kill("vm-1")
            await self._assert_seen(GuestState.STOPPED, StopReason.KILLED)

        async def test_found_again(self) -> None:
            """A guest runs on while nobody watches, and takes commands afterwards."""
            started = await self._started()
            self.fixture.reopen()
            seen = await self._seen()
            self.assertEqual(seen.state, GuestState.RUNNING)
            self.assertEqual((seen.pid, seen.started_at), (started.pid, started.started_at))
            await self.fixture.hypervisor.pause("vm-1")
            self.fixture.reopen()
            await self._assert_seen(GuestState.PAUSED)
            self.fixture.reopen()
            await self.fixture.hypervisor.resume("vm-1")
            self.fixture.reopen()
            again = await self.fixture.hypervisor.start(self.fixture.spec("vm-1", "other"))
            self.assertEqual(again.pid, started.pid)
            self.assertEqual(await self.fixture.hypervisor.stop("vm-1", 30.0), StopReason.STOPPED)
            self.fixture.reopen()
            await self._assert_seen(GuestState.STOPPED, StopReason.STOPPED)

        async def test_guest_powers_itself_off(self) -> None:
            """A guest that powers itself off is told of, with the reason."""
            seen: list[tuple[str, GuestState, StopReason | None]] = []
            unsubscribe = self.fixture.hypervisor.subscribe(
                lambda sid, guest: seen.append((sid, guest.state, guest.reason))
            )
            await self._started()
            await self.fixture.power_off("vm-1")
            told = [("vm-1", GuestState.STOPPED, StopReason.GUEST_SHUTDOWN)]
            self.assertEqual(seen, told)
            await self._assert_seen(GuestState.STOPPED, StopReason.GUEST_SHUTDOWN)
            unsubscribe()
            await self._started()
            await self.fixture.hypervisor.kill("vm-1")
            self.assertEqual(seen, told)

        async def test_guest_crashes(self) -> None:
            """The death of what runs a guest is told of, and the guest can be started again."""
            seen: list[StopReason | None] = []
            self.fixture.hypervisor.subscribe(lambda sid, guest: seen.append(guest.reason))
            await self._started()
            await self.fixture.crash("vm-1")
            self.assertEqual(seen, [StopReason.CRASHED])
            await self._assert_seen(GuestState.STOPPED, StopReason.CRASHED)
            self.assertEqual((await self._started()).state, GuestState.RUNNING)

        async def test_guests_are_apart(self) -> None:
            """What is done to one guest leaves another alone; removing one forgets it."""
            await self._started("vm-1")
            await self._started("vm-2")
            directory = self.fixture.spec("vm-1", "one").directory
            for _ in range(2):
                await self.fixture.hypervisor.remove("vm-1")
            self.assertEqual(list(await self.fixture.hypervisor.observe()), ["vm-2"])
            self.assertFalse(directory.exists())
            await self._assert_seen(GuestState.RUNNING, sid="vm-2")

        async def test_unknown_guest(self) -> None:
            """A guest that was never made is not found."""
            hypervisor = self.fixture.hypervisor
            for command in (hypervisor.kill, hypervisor.pause, hypervisor.resume):
                with self.assertRaises(NotFound):
                    await command("vm-0")
            with self.assertRaises(NotFound):
                await hypervisor.stop("vm-0", 1.0)
            with self.assertRaises(NotFound):
                await hypervisor.stats("vm-0")

        async def test_stopped_guest_cannot_be_paused(self) -> None:
            """Pausing and resuming need a guest that is alive."""
            await self.fixture.hypervisor.create_disk(self.fixture.spec("vm-1", "one"))
            with self.assertRaises(Conflict):
                await self.fixture.hypervisor.pause("vm-1")
            with self.assertRaises(Conflict):
                await self.fixture.hypervisor.resume("vm-1")

    return IHypervisorTests
