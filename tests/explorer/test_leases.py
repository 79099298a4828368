"""Tests for `hero.explorer.leases`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.explorer.leases import Leases, Pace


class PaceTests(SynchronousTestCase):
    """How often nodes are asked to report."""

    def test_small_cluster(self) -> None:
        """A small cluster keeps the interval that was configured."""
        self.assertEqual(Pace(interval=5.0).interval_for(50), 5.0)

    def test_large_cluster_is_slowed(self) -> None:
        """Ten thousand nodes together stay below the number of heartbeats per second."""
        pace = Pace(interval=5.0, per_second=200.0)
        self.assertEqual(pace.interval_for(10_000), 50.0)

    @settings(deadline=None)
    @given(st.integers(min_value=0, max_value=100_000))
    def test_lease_outlasts_two_intervals(self, nodes: int) -> None:
        """One lost heartbeat makes no node unreachable."""
        pace = Pace()
        self.assertGreater(pace.lease_for(nodes), 2 * pace.interval_for(nodes))


class LeasesTests(SynchronousTestCase):
    """Until when a node is believed to be there."""

    def test_unknown_node(self) -> None:
        """A node that never reported is not believed."""
        self.assertFalse(Leases().holds("node-a", 0.0))

    def test_renewed_and_run_out(self) -> None:
        """A lease holds from its renewal for its length."""
        leases = Leases()
        leases.renew("node-a", 10.0, 5.0)
        self.assertTrue(leases.holds("node-a", 14.9))
        self.assertFalse(leases.holds("node-a", 15.0))

    def test_never_made_shorter(self) -> None:
        """A change of pace takes nothing back that was promised."""
        leases = Leases()
        leases.renew("node-a", 10.0, 50.0)
        leases.renew("node-a", 11.0, 5.0)
        self.assertTrue(leases.holds("node-a", 59.0))

    def test_nodes_are_apart(self) -> None:
        """The end of one lease is not the end of another."""
        leases = Leases()
        leases.renew("node-a", 0.0, 5.0)
        leases.renew("node-b", 0.0, 5.0)
        leases.end("node-a")
        self.assertFalse(leases.holds("node-a", 1.0))
        self.assertTrue(leases.holds("node-b", 1.0))
