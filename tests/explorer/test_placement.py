"""Tests for `hero.explorer.placement`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.explorer.model import NodeState
from hero.explorer.placement import Option, Wanted, explain
from tests.explorer.builders import a_node, capacity, node_sid


def names(*options: Option, wanted: Wanted | None = None) -> list[str]:
    """The nodes that fit, in the order in which they would be tried."""
    explanation = explain(options, wanted or Wanted())
    return [c.name for c in explanation.candidates if c.fits]


class PlacementTests(SynchronousTestCase):
    """Where a VM goes, and why."""

    def test_no_nodes(self) -> None:
        """In an empty cluster nothing is chosen."""
        self.assertIsNone(explain([], Wanted()).chosen)

    def test_spreads(self) -> None:
        """The emptiest node comes first."""
        self.assertEqual(
            names(
                Option(node=a_node(1, capacity=capacity(8, 2))),
                Option(node=a_node(2, capacity=capacity(8, 7))),
                Option(node=a_node(3, capacity=capacity(8, 4))),
            ),
            ["n2", "n3", "n1"],
        )

    def test_less_load_wins_among_equals(self) -> None:
        """Of two equally full nodes the idler one is taken."""
        busy, idle = a_node(1, load=2.0), a_node(2, load=0.1)
        self.assertEqual(names(Option(node=busy), Option(node=idle)), ["n2", "n1"])

    def test_ties_go_by_name(self) -> None:
        """The same question has the same answer."""
        self.assertEqual(names(Option(node=a_node(2)), Option(node=a_node(1))), ["n1", "n2"])

    def test_promised_slices_steer_but_do_not_refuse(self) -> None:
        """A burst spreads; a node is not given up for slices that it may have counted already."""
        full = Option(node=a_node(1, capacity=capacity(4, 1)), promised=3)
        self.assertEqual(names(full), ["n1"])
        self.assertEqual(names(full, Option(node=a_node(2, capacity=capacity(4, 1)))), ["n1", "n2"])
        promised = Option(node=a_node(1), promised=2)
        self.assertEqual(names(promised, Option(node=a_node(2))), ["n2", "n1"])

    def test_refusals_are_explained(self) -> None:
        """Each node that cannot take the VM says why."""
        explanation = explain(
            [
                Option(node=a_node(1, state=NodeState.UNREACHABLE)),
                Option(node=a_node(2, state=NodeState.CORDONED)),
                Option(node=a_node(3, capacity=capacity(4, 1))),
                Option(node=a_node(4, capacity=capacity(1))),
                Option(node=a_node(5, capacity=None)),
            ],
            Wanted(slices=2),
        )
        self.assertIsNone(explanation.chosen)
        reasons = {c.name: c.reasons for c in explanation.candidates}
        self.assertEqual(reasons["n1"], ["the node is unreachable"])
        self.assertEqual(reasons["n2"], ["the node is cordoned"])
        self.assertEqual(reasons["n3"], ["1 of 4 slices are free, 2 are needed"])
        self.assertEqual(reasons["n4"], ["the node has 1 slices, 2 are needed"])
        self.assertEqual(reasons["n5"], ["the node has not said what it can hold"])

    def test_certain_node(self) -> None:
        """Asked for by name or sid, only that node will do."""
        options = [Option(node=a_node(1)), Option(node=a_node(2))]
        self.assertEqual(names(*options, wanted=Wanted(node="n2")), ["n2"])
        self.assertEqual(names(*options, wanted=Wanted(node=node_sid(1))), ["n1"])

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 8), st.floats(0, 64), st.sampled_from(NodeState), st.integers(0, 9)
            ),
            max_size=12,
        ),
        st.integers(1, 8),
        st.randoms(),
    )
    def test_order_of_nodes_does_not_matter(self, rows: list, slices: int, random) -> None:  # type: ignore[no-untyped-def,type-arg]
        """The same cluster gives the same answer, and what is chosen has the room."""
        options = [
            Option(
                node=a_node(i, capacity=capacity(8, free), load=load, state=state),
                promised=promised,
            )
            for i, (free, load, state, promised) in enumerate(rows)
        ]
        first = explain(options, Wanted(slices=slices))
        random.shuffle(options)
        self.assertEqual(explain(options, Wanted(slices=slices)), first)
        by_sid = {option.node.sid: option.node for option in options}
        for candidate in first.candidates:
            node = by_sid[candidate.node_sid]
            assert node.capacity is not None
            room = node.state is NodeState.ONLINE and node.capacity.slices_free >= slices
            self.assertEqual(candidate.fits, room)
            self.assertTrue(candidate.reasons)
