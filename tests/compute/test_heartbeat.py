"""Heartbeats: to whom, how often, and with what."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hero.compute.heartbeat import HeartbeatSender, Report, default_retry
from hero.compute.membership import Membership, advertised_address, connect
from hero.compute.model import Capacity, NodeStatus, Vm, VmState
from hero.compute.view import describe_vm, digest_vms
from hero.errors import InvalidConfiguration, Unavailable
from hero.explorer.model import Heartbeat, HeartbeatReply, NodeState, TokenRecord
from hero.identity.tokens import TokenFile
from tests.compute.inline import FACTS, START, record

CAPACITY = Capacity(
    memory=3, disk=3, vcpus=2, slice_memory=1, slice_disk=1, slices=3, slices_free=3
)
VM = describe_vm(record(state=VmState.RUNNING), FACTS, observed_at=START)


def heartbeat(seq: int, vms: list[Vm]) -> Heartbeat:
    return Heartbeat(
        node_sid=FACTS.sid,
        boot_id=FACTS.boot_id,
        seq=seq,
        sent_at=START,
        advertise_address="https://alpha",
        name=FACTS.name,
        version="1",
        capacity=CAPACITY,
        load=0.0,
        vms_digest=digest_vms(vms),
        vms=vms,
    )


@attrs.define
class FakeExplorer:
    """Answers with *reply*, an exception or nothing at all, and keeps what it was sent."""

    reply: HeartbeatReply | Exception | None = attrs.field(
        factory=lambda: HeartbeatReply(interval=5.0)
    )
    got: list[Heartbeat] = attrs.field(factory=list)

    async def heartbeat(
        self, *, heartbeat: Heartbeat, tokens_digest: str, timeout: float
    ) -> HeartbeatReply:
        self.got.append(heartbeat)
        if isinstance(self.reply, Exception):
            raise self.reply
        if self.reply is None:
            await Deferred()
        assert self.reply is not None
        return self.reply


class SenderTests(SynchronousTestCase):
    """`HeartbeatSender` with explorers in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.first, self.second = FakeExplorer(), FakeExplorer()
        self.vms: list[Vm] = []
        self.accepted: list[HeartbeatReply] = []
        self.sender = HeartbeatSender(
            clock=self.clock,
            explorers=[("first", self.first), ("second", self.second)],
            report=self.report,
            accept=self.accept,
            retry=lambda failures: float(failures),
        )
        self.addCleanup(self.check_clean)

    def check_clean(self) -> None:
        self.sender.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def report(self, seq: int) -> Report:
        return Report(heartbeat(seq, self.vms), "")

    async def accept(self, reply: HeartbeatReply) -> None:
        self.accepted.append(reply)

    def start(self) -> None:
        self.sender.startService()
        self.clock.advance(0)

    def test_pace_is_the_explorers(self) -> None:
        """The interval in the answer is kept to."""
        self.first.reply = HeartbeatReply(interval=30.0)
        self.start()
        self.clock.advance(29.0)
        self.assertEqual(len(self.first.got), 1)
        self.clock.advance(1.0)
        self.assertEqual([h.seq for h in self.first.got], [1, 2])

    def test_records_travel_only_when_they_changed(self) -> None:
        """The digest is enough where the explorer knows it."""
        self.start()
        self.clock.advance(5.0)
        self.vms = [VM]
        self.clock.advance(5.0)
        self.clock.advance(5.0)
        self.assertEqual([h.vms for h in self.first.got], [[], None, [VM], None])

    def test_records_that_are_asked_for(self) -> None:
        """They are sent at once, and not over and over."""
        self.start()
        self.first.reply = HeartbeatReply(interval=5.0, send_vms=True)
        self.clock.advance(5.0)
        self.assertEqual([h.vms for h in self.first.got], [[], None, []])

    def test_change_is_told_soon(self) -> None:
        """It does not wait for the end of a long interval."""
        self.first.reply = HeartbeatReply(interval=60.0)
        self.start()
        self.sender.soon()
        self.sender.soon()
        self.clock.advance(1.0)
        self.assertEqual(len(self.first.got), 2)

    def test_change_while_an_answer_is_awaited(self) -> None:
        """It is not forgotten."""
        answer: Deferred[None] = Deferred()

        async def accept(reply: HeartbeatReply) -> None:
            await answer

        self.first.reply = HeartbeatReply(interval=60.0)
        self.sender._accept = accept
        self.start()
        self.sender.soon()
        answer.callback(None)
        self.clock.advance(1.0)
        self.assertEqual(len(self.first.got), 2)

    def test_stays_with_one_that_works(self) -> None:
        """It goes to the next only when the present one fails, and is told everything anew."""
        self.vms = [VM]
        self.start()
        self.first.reply = Unavailable("gone")
        self.clock.advance(5.0)
        self.first.reply = HeartbeatReply(interval=5.0)
        self.clock.advance(5.0)
        self.assertEqual(len(self.first.got), 2)
        self.assertEqual([h.vms for h in self.second.got], [[VM], None])

    def test_backs_off_when_all_fail(self) -> None:
        """Each round of failures waits longer, and says what is wrong."""
        self.first.reply = self.second.reply = Unavailable("gone")
        self.start()
        self.assertIn("gone", self.sender.problem or "")
        self.clock.advance(1.0)
        self.clock.advance(1.0)
        self.assertEqual((len(self.first.got), len(self.second.got)), (2, 2))
        self.first.reply = HeartbeatReply(interval=5.0, state=NodeState.CORDONED)
        self.clock.advance(1.0)
        self.assertEqual((self.sender.problem, self.sender.state), (None, NodeState.CORDONED))

    def test_pace_after_failures(self) -> None:
        """It begins with a second, doubles, and stays at half a minute, each a little later."""
        retry = default_retry()
        for failures, least in ((1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (1000, 30.0)):
            self.assertTrue(least <= retry(failures) <= least + 0.5, failures)

    def test_report_that_cannot_be_made(self) -> None:
        """It is tried again."""

        async def fail(seq: int) -> Report:
            raise ValueError("no")

        self.sender._report = fail
        self.start()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.sender._report = self.report
        self.clock.advance(5.0)
        self.assertEqual(len(self.first.got), 1)

    def test_stops_while_waiting_for_an_answer(self) -> None:
        """Nothing is left behind."""
        self.first.reply = None
        self.start()
        self.assertEqual(len(self.first.got), 1)


class MembershipTests(SynchronousTestCase):
    """What goes into a heartbeat, and what is done with the answer."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.tokens = TokenFile(self.directory / "tokens.json")

    async def status(self) -> NodeStatus:
        return NodeStatus(
            node_sid=FACTS.sid,
            name=FACTS.name,
            version="1",
            boot_id=FACTS.boot_id,
            hypervisor="memory",
            accelerator=None,
            capacity=CAPACITY,
            load=0.5,
            vms=1,
            vms_running=1,
            started_at=START,
        )

    async def vms(self) -> list[Vm]:
        return [VM]

    def membership(self) -> Membership:
        return Membership(
            status=self.status,
            vms=self.vms,
            advertise_address=lambda: "https://alpha",
            tokens=self.tokens,
            state_file=self.directory / "node.json",
        )

    def test_state_that_cannot_be_written_at_first(self) -> None:
        """What other programs are told of the node's state is written once that can be done."""
        membership = self.membership()
        reply = HeartbeatReply(interval=1.0, state=NodeState.CORDONED)
        obstacle = self.directory / "node.json"
        obstacle.mkdir()
        self.failureResultOf(Deferred.fromCoroutine(membership.accept(reply)), OSError)
        obstacle.rmdir()
        self.successResultOf(Deferred.fromCoroutine(membership.accept(reply)))
        self.assertIn("cordoned", obstacle.read_text())

    def test_tokens(self) -> None:
        """A worker keeps the tokens it is sent, and names them by their digest."""
        membership = self.membership()

        def report() -> Report:
            return self.successResultOf(Deferred.fromCoroutine(membership.report(7)))

        before = report()
        self.assertEqual((before.heartbeat.seq, before.heartbeat.vms), (7, [VM]))
        token = TokenRecord(sid="token-1", hash="0" * 64, user="a", claims="admin", context="root")
        reply = HeartbeatReply(interval=1.0, tokens=[token])
        self.successResultOf(Deferred.fromCoroutine(membership.accept(reply)))
        self.assertEqual(self.tokens.records(), [token])
        self.assertIn("online", (self.directory / "node.json").read_text())
        self.assertNotEqual(report().tokens_digest, before.tokens_digest)

    def test_digest(self) -> None:
        """It does not depend on order or on the time of looking, and on everything else."""
        other = attrs.evolve(VM, sid="vm-0000000002")
        self.assertEqual(digest_vms([VM, other]), digest_vms([other, VM]))
        self.assertEqual(digest_vms([VM]), digest_vms([attrs.evolve(VM, observed_at=None)]))
        self.assertNotEqual(digest_vms([VM]), digest_vms([attrs.evolve(VM, reason="x")]))

    def test_advertised_address(self) -> None:
        """A host gets the port that the router has; a URL is taken as it is."""

        def address(configured: str | None) -> str:
            return advertised_address(configured, self.directory, "10.0.0.7")

        self.assertEqual(address(None), "https://10.0.0.7:443")
        (self.directory / "router.json").write_text('{"listening": ["https://127.0.0.1:9998"]}')
        self.assertEqual(address(None), "https://10.0.0.7:9998")
        self.assertEqual(address("alpha.lan"), "https://alpha.lan:9998")
        self.assertEqual(address("fd00::1"), "https://[fd00::1]:9998")
        self.assertEqual(address("https://alpha:1234/"), "https://alpha:1234")

    def test_addresses_of_explorers(self) -> None:
        """Anything that is neither a router nor a socket is refused."""
        reactor: Any = Clock()
        for address in ("https://master:9998", "unix:///run/hero/explorer_rpc.sock"):
            connect(reactor, address, self.directory)
        self.assertRaises(InvalidConfiguration, connect, reactor, "master:9998", self.directory)
