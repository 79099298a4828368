"""Tests for `hero.explorer.nodes`."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.errors import Forbidden
from hero.explorer.errors import HeartbeatStale, NodeUnknown
from hero.explorer.model import NodeState
from hero.explorer.nodes import PAST_BOOTS, accept, check_sender, state_of
from hero.identity.claims import Caller, parse_claims
from tests.explorer.builders import LOCAL_SID, NOON, a_heartbeat, a_record, later, node_sid


class StateTests(SynchronousTestCase):
    """What state a node is in."""

    def test_states(self) -> None:
        """Removal counts most, then whether it was ever seen, then whether it is now."""
        seen = a_record(last_seen=NOON)
        for record, live, state in (
            (a_record(), True, NodeState.JOINING),
            (seen, True, NodeState.ONLINE),
            (seen, False, NodeState.UNREACHABLE),
            (attrs.evolve(seen, cordoned=True), True, NodeState.CORDONED),
            (attrs.evolve(seen, cordoned=True), False, NodeState.UNREACHABLE),
            (attrs.evolve(seen, removed_at=NOON), True, NodeState.REMOVED),
        ):
            self.assertIs(state_of(record, live=live), state)


class SenderTests(SynchronousTestCase):
    """Who may report for whom."""

    def check(self, user: str, claims: str, number: int) -> None:
        caller = Caller(user=user, claims=parse_claims(claims))
        check_sender(caller, a_heartbeat(number), local_sid=LOCAL_SID)

    def test_node_for_itself(self) -> None:
        """A node reports with its own certificate."""
        self.check(f"node:{node_sid(1)}", "node", 1)

    def test_node_for_another(self) -> None:
        """A node cannot speak for another one."""
        with self.assertRaises(Forbidden):
            self.check(f"node:{node_sid(2)}", "node", 1)

    def test_administrator(self) -> None:
        """Even an administrator is no node."""
        with self.assertRaises(Forbidden):
            self.check("user:alice", "admin", 1)

    def test_local_process(self) -> None:
        """The explorer's own machine reports by socket, and only for itself."""
        self.check("local", "admin", 0)
        with self.assertRaises(Forbidden):
            self.check("local", "admin", 1)


class AcceptTests(SynchronousTestCase):
    """Which heartbeats count."""

    def test_first(self) -> None:
        """The first heartbeat after joining is taken over."""
        record = accept(a_record(), a_heartbeat(seq=3), later(9))
        self.assertEqual((record.boot_id, record.seq, record.load), ("boot-one", 3, 0.5))
        self.assertEqual(record.last_seen, later(9))

    def test_unknown(self) -> None:
        """A node that never joined is told to."""
        error = self.assertRaises(NodeUnknown, accept, None, a_heartbeat(), NOON)
        self.assertIn("hero join", error.hint or "")

    def test_removed(self) -> None:
        """A removed node is told that it was removed."""
        error = self.assertRaises(
            NodeUnknown, accept, a_record(removed_at=NOON), a_heartbeat(), NOON
        )
        self.assertIn("removed", error.detail)

    def test_repeated_and_late(self) -> None:
        """Within one start of the sender the sequence grows."""
        record = accept(a_record(), a_heartbeat(seq=5), NOON)
        for seq in (5, 4, 1):
            with self.assertRaises(HeartbeatStale):
                accept(record, a_heartbeat(seq=seq), NOON)
        self.assertEqual(accept(record, a_heartbeat(seq=9), NOON).seq, 9)

    def test_new_start(self) -> None:
        """After a restart of the sender its sequence starts again."""
        record = accept(a_record(), a_heartbeat(seq=50), NOON)
        record = accept(record, a_heartbeat(seq=1, boot_id="boot-two"), NOON)
        self.assertEqual((record.boot_id, record.seq), ("boot-two", 1))

    def test_late_from_an_earlier_start(self) -> None:
        """What an earlier start of the sender sent comes too late, however high its number."""
        record = accept(a_record(), a_heartbeat(seq=5), NOON)
        record = accept(record, a_heartbeat(seq=1, boot_id="boot-two"), NOON)
        error = self.assertRaises(HeartbeatStale, accept, record, a_heartbeat(seq=6), NOON)
        self.assertIn("same node identity", error.hint or "")

    def test_remembered_starts_are_bounded(self) -> None:
        """Starts are forgotten in the end."""
        record = a_record()
        for number in range(50):
            record = accept(record, a_heartbeat(boot_id=f"boot-{number:04}"), NOON)
        self.assertEqual(len(record.past_boots), PAST_BOOTS)

    def test_address_follows(self) -> None:
        """A worker that moved is found at its new address."""
        moved = a_heartbeat(advertise_address="https://10.1.1.1:9998")
        self.assertEqual(accept(a_record(), moved, NOON).advertise_address, "https://10.1.1.1:9998")

    def test_no_sockets_from_afar(self) -> None:
        """A worker cannot make the explorer speak to a socket of the explorer's machine."""
        sly = a_heartbeat(advertise_address="unix:///run/hero/hero_compute/rpc.sock")
        self.assertEqual(accept(a_record(), sly, NOON).advertise_address, "https://n1:9998")

    def test_no_address_that_is_none(self) -> None:
        """What no client could be made for is not taken over: it would fail calls to all nodes."""
        for bad in ("https://[bad", "https://", "https://h:99999", "https://h:0", "https://h/p"):
            sent = a_heartbeat(advertise_address=bad)
            record = accept(a_record(), sent, NOON)
            self.assertEqual(record.advertise_address, "https://n1:9998", bad)
        sent = a_heartbeat(advertise_address="https://[::1]:9998")
        self.assertEqual(accept(a_record(), sent, NOON).advertise_address, "https://[::1]:9998")

    def test_local_address_stays(self) -> None:
        """The explorer's own machine is always called by socket."""
        record = a_record(local=True, advertise_address="unix:///s")
        self.assertEqual(accept(record, a_heartbeat(), NOON).advertise_address, "unix:///s")

    @settings(deadline=None)
    @given(st.lists(st.integers(min_value=1, max_value=20), max_size=30))
    def test_sequence_never_falls(self, seqs: list[int]) -> None:
        """Whatever comes in whatever order, the newest is what is known."""
        record = a_record()
        for seq in seqs:
            try:
                record = accept(record, a_heartbeat(seq=seq), NOON)
            except HeartbeatStale:
                continue
        self.assertEqual(record.seq, max(seqs, default=0))
