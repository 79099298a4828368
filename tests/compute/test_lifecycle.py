"""Which state may follow which, and what is accepted in each."""

from twisted.trial.unittest import SynchronousTestCase

from hero.compute.lifecycle import (
    ACCEPTED,
    TRANSITIONS,
    Command,
    check_command,
    check_transition,
)
from hero.compute.model import VmState
from hero.errors import Conflict


class LifecycleTests(SynchronousTestCase):
    """The tables are whole, and agree with each other."""

    def test_tables_are_complete(self) -> None:
        """Every state and every command has its row."""
        self.assertEqual(set(TRANSITIONS), set(VmState))
        self.assertEqual(set(ACCEPTED), set(Command))

    def test_every_state_leads_to_the_end(self) -> None:
        """A VM can be deleted in any state, and nothing follows."""
        for state in VmState:
            check_transition(state, VmState.DELETING)
            check_command(Command.DELETE_BY_FORCE, "web", state)
        self.assertEqual(TRANSITIONS[VmState.DELETING], frozenset())

    def test_unknown_transition(self) -> None:
        """A VM that was never made cannot run."""
        self.assertRaises(ValueError, check_transition, VmState.REQUESTED, VmState.RUNNING)

    def test_refusal_says_what_to_do(self) -> None:
        """The state, the command, and what would do instead."""
        error = self.assertRaises(Conflict, check_command, Command.DELETE, "web", VmState.RUNNING)
        self.assertEqual(error.detail, "VM web is running: cannot delete it")
        self.assertEqual(error.hint, "stop it first, or use force")
        self.assertEqual(error.data, {"state": "running"})
