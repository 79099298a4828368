"""Tests for `hero.explorer.node_proxy`: how long one node can keep a caller waiting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hero.explorer.errors import NodeUnreachable
from hero.explorer.node_proxy import NodeProxy
from tests.explorer.builders import LOCAL_SID, a_record, admin


class SilentClient:
    """Takes every call and answers none until it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Deferred[Any]]] = []

    async def call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float,
        headers: Mapping[str, str],
    ) -> Any:
        answer: Deferred[Any] = Deferred()
        self.calls.append((method, answer))
        return await answer

    def answer_all(self) -> None:
        """Leave nobody waiting. Each answer may let another call in, which then stands here too."""
        for _, answer in self.calls:
            if not answer.called:
                answer.callback(None)


class TurnTests(SynchronousTestCase):
    """Calls to one node wait for each other, within limits."""

    def setUp(self) -> None:
        self.clock, self.client = Clock(), SilentClient()
        self.proxy = NodeProxy(
            self.clock, lambda node, context: self.client, local_sid=LOCAL_SID, concurrency=2
        )
        self.addCleanup(self.client.answer_all)

    def ask(self, method: str, timeout: float | None = None) -> Deferred[Any]:
        """Begin a call to one and the same node."""
        call = self.proxy.call(a_record(), admin(), method, {}, timeout=timeout)
        asked = Deferred.fromCoroutine(call)
        asked.addErrback(lambda failure: failure.value if timeout is not None else failure)
        return asked

    def test_turns(self) -> None:
        """The third call is made when one of two has been answered."""
        asked = [self.ask("get_vm") for _ in range(3)]
        self.assertEqual(len(self.client.calls), 2)
        self.client.calls[0][1].callback("first")
        self.assertEqual(self.successResultOf(asked[0]), "first")
        self.assertEqual(len(self.client.calls), 3)

    def test_waiting_for_a_turn_counts(self) -> None:
        """Whoever gives a node five seconds has an answer after five, whoever asked before."""
        for _ in range(2):
            self.ask("get_vm")
        late = self.ask("list_slices", timeout=5.0)
        self.clock.advance(4.9)
        self.assertNoResult(late)
        self.clock.advance(0.2)
        self.assertIsInstance(self.successResultOf(late), NodeUnreachable)
        self.client.calls[0][1].callback("first")
        self.assertEqual(len(self.client.calls), 2, "the call that was given up is not made")

    def test_logs_have_turns_of_their_own(self) -> None:
        """Many who follow logs keep nobody from anything else on the node."""
        for _ in range(5):
            self.ask("vm_logs")
        self.ask("stop_vm")
        called = [method for method, _ in self.client.calls]
        self.assertEqual(called, ["ComputeService.vm_logs"] * 2 + ["ComputeService.stop_vm"])


class ErrorTests(SynchronousTestCase):
    """What nodes answer is understood."""

    def test_errors_of_nodes_are_known_in_an_explorer_process(self) -> None:
        """A refusal moves a deployment to the next node only if its kind is known. Here tests have
        imported everything; a process of the explorer's own has imported what it needs."""
        theirs = (
            "import hero.explorer.tap; from hero.errors import error_kinds; kinds = error_kinds();"
            "import hero.compute.errors, hero.compute.hypervisor.errors;"
            "print(*sorted(error_kinds().keys() - kinds.keys()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", theirs], capture_output=True, text=True, timeout=60
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(done.stdout.split(), [], "kinds that the explorer does not know")
