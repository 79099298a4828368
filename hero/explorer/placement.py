"""Where a VM goes: filter the nodes, then score those that are left. Pure and deterministic.

Every verdict comes with its reasons, so that a person can be told why. The explorer only
proposes; the node that is chosen decides.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from hero.explorer.model import Candidate, Node, NodeState, PlacementExplanation


@attrs.frozen(kw_only=True)
class Wanted:
    """What a VM needs. ``node`` is the sid or name of the only node that will do."""

    slices: int = 1
    node: str | None = None


@attrs.frozen(kw_only=True)
class Option:
    """A node to choose from. ``promised`` slices are those of deployments under way."""

    node: Node
    promised: int = 0


def explain(options: Iterable[Option], wanted: Wanted) -> PlacementExplanation:
    """Judge every node. The candidates come in the order in which they are to be tried.

    Spread: the node with the largest share of its slices left after the VM wins; of equals, the
    one with less load on each CPU, then the one with the earlier name.
    """
    judged = [_judge(option, wanted) for option in options]
    judged.sort(key=lambda c: (not c.fits, -c.score, c.name, c.node_sid))
    chosen = judged[0].node_sid if judged and judged[0].fits else None
    return PlacementExplanation(chosen=chosen, candidates=judged)


def _judge(option: Option, wanted: Wanted) -> Candidate:
    node = option.node
    reasons = _refusals(node, wanted)
    if reasons:
        return Candidate(node_sid=node.sid, name=node.name, fits=False, reasons=reasons)
    score, said = _score(option, wanted)
    return Candidate(node_sid=node.sid, name=node.name, fits=True, score=score, reasons=said)


def _refusals(node: Node, wanted: Wanted) -> list[str]:
    reasons = []
    if wanted.node is not None and wanted.node not in (node.sid, node.name):
        reasons.append(f"{wanted.node} was asked for")
    if node.state is not NodeState.ONLINE:
        reasons.append(f"the node is {node.state.value}")
    capacity = node.capacity
    if capacity is None:
        reasons.append("the node has not said what it can hold")
    elif capacity.slices < wanted.slices:
        reasons.append(f"the node has {capacity.slices} slices, {wanted.slices} are needed")
    elif capacity.slices_free < wanted.slices:
        reasons.append(
            f"{capacity.slices_free} of {capacity.slices} slices are free, "
            f"{wanted.slices} are needed"
        )
    return reasons


def _score(option: Option, wanted: Wanted) -> tuple[float, list[str]]:
    capacity = option.node.capacity
    assert capacity is not None
    left = max(0, capacity.slices_free - option.promised - wanted.slices)
    share = 100.0 * left / capacity.slices
    busy = min(10.0, 10.0 * (option.node.load or 0.0) / max(1, capacity.vcpus))
    said = [f"{left} of {capacity.slices} slices left after it"]
    if option.promised:
        said.append(f"{option.promised} slices promised to deployments under way")
    if busy >= 0.01:
        said.append(f"load costs {busy:.2f}")
    return round(share - busy, 2), said
